# SPDX-License-Identifier: Apache-2.0
"""The core: every unit, wired."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib.wiring import Component, Member, Out, Signature, connect

from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, Unit, Window, isa_hash
from loomwork.arch.registers import BY_NAME, COUNTERS, ID_VALUE, INTERFACE_VERSION, ErrorCode
from loomwork.rtl.axi import Axi4Lite, Axi4Read, Axi4Write, connect_flat, flat_members
from loomwork.rtl.control import Control
from loomwork.rtl.counters import Counters
from loomwork.rtl.csr import CSR_ADDRESS_BITS, Csr
from loomwork.rtl.decoder import COMMAND_INDEX_BITS, Decoder
from loomwork.rtl.dispatch import ENGINES, Dispatch
from loomwork.rtl.drain import Drain
from loomwork.rtl.execute import Execute
from loomwork.rtl.fetch import Fetch
from loomwork.rtl.load import Load
from loomwork.rtl.memory_window import SIZE_BITS
from loomwork.rtl.ports import ERROR_BITS
from loomwork.rtl.read_master import ReadMaster
from loomwork.rtl.replica import Replica
from loomwork.rtl.scratchpad import Scratchpad
from loomwork.rtl.store import Store
from loomwork.rtl.stream_reader import StreamReader
from loomwork.rtl.write_master import WriteMaster

_NAMES = tuple(unit.name.lower() for unit in ENGINES)
_COMMAND_SHIFT = (COMMAND_BYTES - 1).bit_length()


def trace_members() -> dict[str, Member]:
    """Ports that tell a simulator what each unit does.

    For each unit: `trace_<unit>_start`, one cycle in which it takes a command; `trace_<unit>_offset`, at that time, the
    byte offset of that command in the program; `trace_<unit>_done`, one cycle per finished command, in order.
    """
    members: dict[str, Member] = {}
    for name in _NAMES:
        members[f"trace_{name}_start"] = Out(1)
        members[f"trace_{name}_offset"] = Out(COMMAND_INDEX_BITS + _COMMAND_SHIFT)
        members[f"trace_{name}_done"] = Out(1)
    return members


def core_signature(config: Config, *, trace: bool = False) -> Signature:
    """The ports: AXI4 master `m_axi_*`, AXI4-Lite slave `s_axil_*`, interrupt `irq` (level, active high).

    trace: also the ports of `trace_members`.
    """
    return Signature(
        {
            **flat_members("m_axi", Axi4Write(config)),
            **flat_members("m_axi", Axi4Read(config)),
            **flat_members("s_axil", Axi4Lite(CSR_ADDRESS_BITS).flip()),
            "irq": Out(1),
            **(trace_members() if trace else {}),
        }
    )


class Core(Component):
    """The accelerator, with the ports of `core_signature`; docs/microarchitecture.md describes it.

    All is synchronous to `clk`, with a synchronous reset `rst`, active high. `rst` must last at least one cycle and may
    come only when the bus is reset too; a soft reset finishes what is on the bus first.
    """

    irq: Signal

    def __init__(self, config: Config, *, trace: bool = False) -> None:
        self._config = config
        self._trace = trace
        super().__init__(core_signature(config, trace=trace))

    def elaborate(self, platform: object) -> Module:
        config = self._config
        m = Module()
        # Everything but the registers and the control itself is reset before each program, and by a soft reset.
        clear, halt = Signal(), Signal()

        def add(name: str, unit: Any) -> Any:
            m.submodules[f"{name}_replica"] = replica = Replica()
            m.d.comb += [replica.clear.eq(clear), replica.halt.eq(halt)]
            m.submodules[name] = ResetInserter(replica.unit_clear)(unit)
            if "halt" in unit.signature.members:
                m.d.comb += unit.halt.eq(replica.unit_halt)
            return unit

        m.submodules.csr = csr = Csr(address_bits=config.address_bits, deep=config.deep_pipeline)
        fetch = add("fetch", Fetch(config))
        decoder = add("decoder", Decoder(deep=config.deep_pipeline))
        dispatch = add("dispatch", Dispatch(config))
        read_master = add("read_master", ReadMaster(config, readers=3))
        write_master = add("write_master", WriteMaster(config))
        scratchpad = add("scratchpad", Scratchpad(config))
        units: dict[Unit, Any] = {
            Unit.LOAD: add("load", Load(config)),
            Unit.EXECUTE: add("execute", Execute(config)),
            Unit.DRAIN: add("drain", Drain(config)),
            Unit.STORE: add("store", Store(config)),
            Unit.STREAM: add("stream", StreamReader(config)),
        }
        load, execute, drain, store, stream = (units[unit] for unit in ENGINES)

        # Commands.
        connect(m, fetch.o, decoder.i)
        connect(m, decoder.o, dispatch.i)
        for unit in ENGINES:
            connect(m, getattr(dispatch, unit.name.lower()), units[unit].unit)
        # Data.
        connect(m, fetch.bus, read_master.readers[0])
        connect(m, load.bus, read_master.readers[1])
        connect(m, stream.bus, read_master.readers[2])
        connect(m, store.bus, write_master.writer)
        connect(m, load.write, scratchpad.load_write)
        connect(m, execute.read, scratchpad.feed)
        connect(m, drain.read, scratchpad.drain_read)
        connect(m, drain.write, scratchpad.drain_write)
        connect(m, store.read, scratchpad.store_read)
        connect(m, stream.words, execute.weights)
        connect(m, execute.params, drain.params)
        m.d.comb += drain.next_memories.eq(execute.next_memories)
        connect(m, drain.accumulator, execute.accumulator)
        # Ports.
        connect_flat(m, self, "m_axi", read_master.axi)
        connect_flat(m, self, "m_axi", write_master.axi)
        connect_flat(m, self, "s_axil", csr.bus)

        faults = self._faults(m, fetch, decoder, dispatch, scratchpad, units)
        m.submodules.control = control = Control(len(faults), late=config.deep_pipeline)
        m.submodules.counters = counters = Counters()
        m.d.comb += [control.faults[place].eq(Cat(code, index)) for place, (code, index) in enumerate(faults)]
        # What only the watchdog wants to know has a cycle of its own.
        progress = Signal()
        m.d.sync += progress.eq(dispatch.finished | read_master.beat | write_master.beat)
        m.d.comb += [
            clear.eq(control.clear),
            halt.eq(control.halt),
            control.ended.eq(dispatch.ended),
            control.bus_idle.eq(read_master.idle & write_master.idle),
            control.progress.eq(progress),
            control.stuck_index.eq(dispatch.stuck_index),
            fetch.go.eq(control.go),
            counters.clear.eq(control.clear),
            counters.enable.eq(control.running),
        ]
        self._registers(m, csr, control, counters, (fetch, load, store, stream))
        self._count(m, counters, dispatch, read_master, write_master, units)
        if self._trace:
            self._expose(m, dispatch)
        return m

    def _faults(
        self, m: Module, fetch: Fetch, decoder: Decoder, dispatch: Dispatch, scratchpad: Scratchpad, units: Any
    ) -> list[tuple[Value, Value]]:
        """What may stop the engine: code and number of the command, most telling first when several come at once."""

        def beyond(error: Value) -> Value:
            return Mux(error, ErrorCode.SCRATCHPAD, ErrorCode.NONE)

        index = {unit: getattr(dispatch, f"{unit.name.lower()}_index") for unit in ENGINES}
        # A unit that has failed never finishes its command, so that the program cannot end before its error is seen.
        errors: dict[Unit, tuple[Value, Value]] = {}
        for unit in ENGINES:
            name = unit.name.lower()
            code, place = Signal(ERROR_BITS, name=f"{name}_error"), Signal(COMMAND_INDEX_BITS, name=f"{name}_failed")
            m.d.sync += [code.eq(units[unit].unit.error), place.eq(index[unit])]
            errors[unit] = code, place
        return [
            (decoder.error, decoder.error_index),
            *(errors[unit] for unit in ENGINES),
            (beyond(scratchpad.load_write_error), index[Unit.LOAD]),
            (beyond(scratchpad.feed_error), index[Unit.EXECUTE]),
            (beyond(scratchpad.drain_read_error | scratchpad.drain_write_error), index[Unit.DRAIN]),
            (beyond(scratchpad.store_read_error), index[Unit.STORE]),
            (fetch.error, fetch.error_index),
        ]

    def _registers(self, m: Module, csr: Any, control: Control, counters: Counters, users: tuple[Any, ...]) -> None:
        """Give the registers their values and their effects. users: of the windows."""

        def part(register: str, name: str, value: Value) -> Value:
            """A named part of a register, as a slice of its value."""
            bits = next(bits for bits in BY_NAME[register].bits if bits.name == name)
            return value[bits.low : bits.low + bits.width]

        done_event, error_event = Signal(), Signal()
        m.d.sync += [done_event.eq(control.done_event), error_event.eq(control.error_event)]
        m.d.comb += [
            csr.id.eq(ID_VALUE),
            csr.version.eq(INTERFACE_VERSION),
            csr.isa_hash.eq(isa_hash()),
            csr.config_hash_low.eq(self._config.hash & 0xFFFF_FFFF),
            csr.config_hash_high.eq(self._config.hash >> 32),
            csr.clear.eq(control.soft_clear),
            control.start.eq(part("CONTROL", "START", csr.control)),
            control.reset.eq(part("CONTROL", "RESET", csr.control)),
            part("STATUS", "BUSY", csr.status).eq(control.busy),
            part("STATUS", "DONE", csr.status).eq(control.done),
            part("STATUS", "ERROR", csr.status).eq(control.error),
            part("IRQ_STATUS", "DONE", csr.irq_status_set).eq(done_event),
            part("IRQ_STATUS", "ERROR", csr.irq_status_set).eq(error_event),
            csr.error_code.eq(control.error_code),
            csr.error_command.eq(control.error_index << _COMMAND_SHIFT),
            control.watchdog.eq(csr.watchdog),
            *(getattr(csr, f"count_{name}").eq(counters.values[name]) for name, _ in COUNTERS),
        ]
        m.d.sync += self.irq.eq((csr.irq_status & csr.irq_enable).any())
        for window in Window:
            low = getattr(csr, f"{window.name.lower()}_base_low")
            high = getattr(csr, f"{window.name.lower()}_base_high")
            size = getattr(csr, f"{window.name.lower()}_size")
            for user in users:
                m.d.comb += [
                    user.windows[window].base.eq(Cat(low, high)),
                    user.windows[window].size.eq(size[:SIZE_BITS]),
                ]

    def _count(
        self,
        m: Module,
        counters: Counters,
        dispatch: Any,
        read_master: ReadMaster,
        write_master: WriteMaster,
        units: dict[Unit, Any],
    ) -> None:
        events: dict[str, Any] = {
            "cycles": 1,
            "array_active": units[Unit.EXECUTE].array_active,
            "execute_wait_weights": units[Unit.EXECUTE].wait_weights,
            "execute_wait_accumulator": units[Unit.EXECUTE].wait_accumulator,
            "drain_wait_accumulator": units[Unit.DRAIN].wait_accumulator,
            "drain_wait_bank": units[Unit.DRAIN].wait_bank,
            "fetch_wait_queue": dispatch.wait_queue,
            "read_beats": read_master.beat,
            "write_beats": write_master.beat,
            **{f"{unit.name.lower()}_busy": units[unit].unit.busy for unit in ENGINES},
            **{f"{name}_wait_ticket": getattr(dispatch, f"{name}_waiting") for name in _NAMES},
        }
        m.d.comb += [counters.events[name].eq(events[name]) for name, _ in COUNTERS]

    def _expose(self, m: Module, dispatch: Any) -> None:
        """Drive the trace ports."""
        for name in _NAMES:
            m.d.comb += [
                getattr(self, f"trace_{name}_start").eq(getattr(dispatch, f"{name}_started")),
                getattr(self, f"trace_{name}_offset").eq(getattr(dispatch, f"{name}_started_index") << _COMMAND_SHIFT),
                getattr(self, f"trace_{name}_done").eq(getattr(dispatch, name).done),
            ]

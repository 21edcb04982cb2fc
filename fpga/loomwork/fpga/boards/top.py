# SPDX-License-Identifier: Apache-2.0
"""The top of a board's design: clock, reset, pins, and the system behind them."""

from typing import Any

from amaranth.build import Subsignal
from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from loomwork.arch.config import Config
from loomwork.fpga.boards.board import Board
from loomwork.fpga.boards.clocking import ClockError, Pll
from loomwork.fpga.boards.compact_system import CompactSystem
from loomwork.fpga.boards.system import System
from loomwork.fpga.host_link import BAUD


class Top(Elaboratable):
    """Everything on a board.

    clock_mhz: to run at; the PLL comes as close as it can from below. An oscillator that is slower than all that a PLL
    makes can be the clock itself. The first LED is on while no program has ended.

    Raises ClockError for a frequency that the board's PLL cannot make, ConfigError for a memory that fits no bus.
    """

    def __init__(self, board: Board, config: Config, memory_kib: int, clock_mhz: float) -> None:
        self._board = board
        self.setting = self._choose(clock_mhz)
        frequency = board.oscillator_mhz if self.setting is None else self.setting.output
        self.clock_mhz = frequency
        system = CompactSystem if board.compact else System
        self.system = system(config, memory_kib * 1024, round(frequency * 1e6 / BAUD))

    def _choose(self, clock_mhz: float) -> Pll | None:
        board = self._board
        limits = board.family.pll_limits
        if clock_mhz == board.oscillator_mhz and (limits is None or clock_mhz < limits.output[0]):
            return None
        if limits is None:
            raise ClockError(f"{board.title} runs at {board.oscillator_mhz:g} MHz, not at {clock_mhz:g} MHz")
        return limits.choose(board.oscillator_mhz, clock_mhz)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        family = self._board.family
        oscillator, clock, locked = Signal(), Signal(), Signal()
        port = platform.request(self._board.oscillator, dir="-")
        if self.setting is not None and family.pll_limits is not None and family.pll_limits.pad:
            source = port.io
        else:
            m.submodules.clock_pin = pin = io.Buffer(io.Direction.Input, port)
            m.d.comb += oscillator.eq(pin.i)
            source = oscillator
        if self.setting is None:
            m.d.comb += [clock.eq(oscillator), locked.eq(1)]
        else:
            assert family.pll_cell is not None
            m.submodules.pll = family.pll_cell(self.setting, source, clock, locked)
        # Flip-flops have their initial values from the bitstream. They keep them as long as the clock stands still;
        # otherwise all of them are reset while it is not stable.
        m.domains.sync = sync = ClockDomain(reset_less=family.gate_cell is not None)
        if family.gate_cell is not None:
            gated = Signal()
            m.submodules.clock_gate = family.gate_cell(clock, locked, gated)
            m.d.comb += sync.clk.eq(gated)
        else:
            m.d.comb += sync.clk.eq(clock)
            reset = Signal(init=1)
            m.submodules.reset_synchronizer = FFSynchronizer(~locked, reset, init=1, stages=3)
            m.d.comb += sync.rst.eq(reset)

        m.submodules.system = system = self.system
        lines = [part.name for part in platform.lookup("uart", 0).ios if isinstance(part, Subsignal)]
        uart = platform.request("uart", 0, dir=dict.fromkeys(lines, "-"))
        m.submodules.rx_pin = rx_pin = io.Buffer(io.Direction.Input, uart.rx)
        m.submodules.tx_pin = tx_pin = io.Buffer(io.Direction.Output, uart.tx)
        m.submodules.led_pin = led_pin = io.Buffer(io.Direction.Output, platform.request("led", 0, dir="-"))
        m.d.comb += [system.rx.eq(rx_pin.i), tx_pin.o.eq(system.tx), led_pin.o.eq(~system.irq)]
        return m

# SPDX-License-Identifier: Apache-2.0
"""From pins and clock to a bitstream with the real tools: an echo in place of the core, which takes minutes."""

import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from loomwork.fpga import synthesis
from loomwork.fpga.boards.board import Board
from loomwork.fpga.boards.catalog import ICEBREAKER, TANG_NANO_20K
from loomwork.fpga.boards.top import Top
from loomwork.fpga.build import Progress, build
from loomwork.fpga.link.uart import UartReceiver, UartTransmitter
from loomwork.fpga.place_route import LOG, Routed, pack, place_and_route
from loomwork.fpga.synthesis import Netlist
from loomwork.fpga.tools import find_tool
from loomwork.fpga.yosys import find_yosys, run_script
from tests.models import CHECKOUT

BITSTREAM_BYTES = 104_090
"""Size of every bitstream for an iCE40UP5K."""

# The system whose place the echo takes is never used.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Find what was never used at once, where it is ignored."""
    yield
    gc.collect()


class Echo(Component):
    """In place of a `System`: sends each byte that comes; `irq` changes with each."""

    rx: Signal
    tx: Signal
    irq: Signal

    def __init__(self, divisor: int) -> None:
        self._divisor = divisor
        super().__init__({"rx": In(1), "tx": Out(1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(self._divisor)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            transmitter.i.payload.eq(receiver.data),
            transmitter.i.valid.eq(receiver.valid),
        ]
        with m.If(receiver.valid):
            m.d.sync += self.irq.eq(~self.irq)
        return m


def _route(board: Board, clock_mhz: float, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Routed:
    """The echo, placed and routed."""
    family = board.family
    top = Top(board, board.config, board.memory_kib, clock_mhz)
    monkeypatch.setattr(top, "system", Echo(round(clock_mhz)))
    files = board.platform().prepare(top, "top", emit_src=False).files
    for name in ("top.il", family.constraints_file):
        content = files[name]
        (folder / name).write_text(content.decode() if isinstance(content, bytes) else content)
    recipe = f"read_rtlil top.il; {family.synthesis.format(top='top')}; write_json {synthesis.NETLIST}"
    run_script(find_yosys(), recipe, "stat -json", folder)
    netlist = Netlist(folder=folder, units={})
    placer = find_tool(family.placer)
    routed = place_and_route(board, netlist, placer, [1], clock_mhz, workers=1, report=lambda _, __: None).best
    assert routed.fmax > clock_mhz
    assert routed.path.levels > 0
    # The slowest one of all, from the delays of every wire and cell, is that which nextpnr has found.
    assert 1000 / routed.unit_paths[0].delay == pytest.approx(routed.fmax, rel=1e-3)
    return routed


def test_a_small_design_becomes_a_bitstream_for_a_tang_nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    routed = _route(TANG_NANO_20K, 54, tmp_path, monkeypatch)
    assert routed.utilization["rPLL"][0] == 1
    bitstream = pack(TANG_NANO_20K, find_tool(TANG_NANO_20K.family.packer), routed).decode()
    assert len(bitstream.splitlines()) > 1000
    assert set(bitstream) == set("01\n")


def test_a_small_design_becomes_a_bitstream_for_an_icebreaker_at_twice_its_oscillator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    routed = _route(ICEBREAKER, 24, tmp_path, monkeypatch)
    assert routed.utilization["ICESTORM_PLL"][0] == 1
    # What nextpnr makes of the cell's parameters.
    log = (routed.folder / LOG).read_text(encoding="utf-8")
    assert re.search(r"Input frequency of PLL '\S+' is constrained to 12\.0 MHz", log)
    assert re.search(r"VCO frequency of PLL '\S+' is constrained to 768\.0 MHz", log)
    assert re.search(r"Derived frequency constraint of 24\.0 MHz for net \S+", log)
    bitstream = pack(ICEBREAKER, find_tool(ICEBREAKER.family.packer), routed)
    assert len(bitstream) == BITSTREAM_BYTES
    # The preamble: Project IceStorm, "Bitstream Format".
    assert bytes.fromhex("7EAA997E") in bitstream


def test_the_icebreaker_is_built_as_the_documentation_says():
    """The whole board: core, firmware, memory and host link, from RTL to its bitstream. It takes three minutes."""
    record = json.loads((CHECKOUT / "docs/records/board_icebreaker.json").read_text())
    board = ICEBREAKER
    result = build(
        board,
        board.config,
        memory_kib=board.memory_kib,
        clock_mhz=board.clock_mhz,
        seeds=[1],
        workers=1,
        allow_slow=False,
        progress=Mock(spec=Progress),
    )
    report = json.loads(json.dumps(result.to_dict()))
    assert report["meets_timing"]
    assert len(result.bitstream) == BITSTREAM_BYTES
    assert report["placed"]["ICESTORM_SPRAM"] == [4, 4]
    assert report["units"] == record["units"]
    # Another nextpnr places otherwise.
    assert report["tools"] != record["tools"] or report == record

# SPDX-License-Identifier: Apache-2.0
"""From pins and clock to a bitstream with the real tools, for a board whose core does not fit: an echo instead."""

from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from loomwork.fpga import synthesis
from loomwork.fpga.boards.catalog import TANG_NANO_20K
from loomwork.fpga.boards.top import Top
from loomwork.fpga.link.uart import UartReceiver, UartTransmitter
from loomwork.fpga.place_route import pack, place_and_route
from loomwork.fpga.synthesis import Netlist
from loomwork.fpga.tools import find_tool
from loomwork.fpga.yosys import find_yosys, run_script


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


# The system whose place the echo takes is never used.
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_a_small_design_becomes_a_bitstream_for_a_tang_nano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    board = TANG_NANO_20K
    family = board.family
    top = Top(board, board.config, board.memory_kib, 54)
    monkeypatch.setattr(top, "system", Echo(54))
    files = board.platform().prepare(top, "top", emit_src=False).files
    for name in ("top.il", family.constraints_file):
        content = files[name]
        (tmp_path / name).write_text(content.decode() if isinstance(content, bytes) else content)
    recipe = f"read_rtlil top.il; {family.synthesis} -top top; write_json {synthesis.NETLIST}"
    run_script(find_yosys(), recipe, "stat -json", tmp_path)
    netlist = Netlist(folder=tmp_path, units={})
    result = place_and_route(board, netlist, find_tool(family.placer), [1], 54, workers=1, report=lambda _, __: None)
    assert result.best.fmax > 54
    assert result.best.path.levels > 0
    # The slowest one of all, from the delays of every wire and cell, is that which nextpnr has found.
    assert 1000 / result.best.unit_paths[0].delay == pytest.approx(result.best.fmax, rel=1e-3)
    assert result.best.utilization["rPLL"][0] == 1
    bitstream = pack(board, find_tool(family.packer), result.best).decode()
    assert len(bitstream.splitlines()) > 1000
    assert set(bitstream) == set("01\n")

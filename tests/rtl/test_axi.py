# SPDX-License-Identifier: Apache-2.0
"""Port names of the top level against the signal lists of the AXI specification (ARM IHI 0022, tables A2 and B1)."""

import re
from typing import Any

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In

from loomwork.arch.config import BASE, Config
from loomwork.rtl.axi import Axi4Lite, connect_flat, flat_members
from loomwork.rtl.load import Load
from loomwork.rtl.read_master import ReadMaster
from loomwork.rtl.store import Store
from loomwork.rtl.stream_reader import StreamReader
from loomwork.rtl.write_master import WriteMaster

ADDRESS_OUTPUTS = ("id", "addr", "len", "size", "burst", "lock", "cache", "prot", "qos", "region", "valid")
READ_OUTPUTS = [*(f"ar{name}" for name in ADDRESS_OUTPUTS), "rready"]
READ_INPUTS = ["arready", "rid", "rdata", "rresp", "rlast", "rvalid"]
WRITE_OUTPUTS = [*(f"aw{name}" for name in ADDRESS_OUTPUTS), "wdata", "wstrb", "wlast", "wvalid", "bready"]
WRITE_INPUTS = ["awready", "wready", "bid", "bresp", "bvalid"]
LITE_ADDRESS = ["awaddr", "awprot", "awvalid", "araddr", "arprot", "arvalid"]
LITE_MASTER_OUTPUTS = [*LITE_ADDRESS, "wdata", "wstrb", "wvalid", "bready", "rready"]
LITE_MASTER_INPUTS = ["awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid"]


class Registers(Component):
    """An AXI4-Lite slave of nothing, to see its ports."""

    axil: Any

    def __init__(self) -> None:
        super().__init__({"axil": In(Axi4Lite(9))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.axil.rdata.eq(self.axil.araddr)
        return m


class Top(Component):
    """A master and a slave under their flat names."""

    def __init__(self, config: Config) -> None:
        self._reads, self._writes, self._registers = ReadMaster(config, 3), WriteMaster(config), Registers()
        super().__init__(
            {
                **flat_members("m_axi", self._reads.axi.signature),
                **flat_members("m_axi", self._writes.axi.signature),
                **flat_members("s_axil", self._registers.axil.signature),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reads, m.submodules.writes, m.submodules.registers = self._reads, self._writes, self._registers
        connect_flat(m, self, "m_axi", self._reads.axi)
        connect_flat(m, self, "m_axi", self._writes.axi)
        connect_flat(m, self, "s_axil", self._registers.axil)
        return m


def test_flat_ports_carry_the_standard_names():
    text = verilog.convert(Top(BASE), name="top", strip_internal_attrs=True)
    top = text[text.index("module top(") :]
    top = top[: top.index("endmodule")]
    ports = {name: kind for kind, name in re.findall(r"^  (input|output)(?: \[\d+:0\])? (\w+);", top, re.MULTILINE)}
    assert ports.pop("clk") == ports.pop("rst") == "input"
    assert ports == {
        **{f"m_axi_{name}": "output" for name in READ_OUTPUTS + WRITE_OUTPUTS},
        **{f"m_axi_{name}": "input" for name in READ_INPUTS + WRITE_INPUTS},
        **{f"s_axil_{name}": "input" for name in LITE_MASTER_OUTPUTS},
        **{f"s_axil_{name}": "output" for name in LITE_MASTER_INPUTS},
    }


@pytest.mark.parametrize("unit", [Load, Store, StreamReader])
def test_units_turn_into_verilog(unit: Any):
    assert "module unit(" in verilog.convert(unit(BASE), name="unit")

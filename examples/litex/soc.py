# SPDX-License-Identifier: Apache-2.0
"""A LiteX SoC with a Loomwork core: registers on the SoC's bus, AXI4 master into its memory, interrupt.

    loomwork package --config tiny -o build/loomwork_tiny
    python examples/litex/soc.py build/loomwork_tiny -o build/litex

writes `soc.v`, `soc_ram.init` and `core.v`: a SoC without a processor, whose bus an AXI4-Lite port `host` drives, with
RAM at RAM_BASE and the core's registers at CORE_BASE. `add_loomwork` does the same for any other SoC.
"""

import argparse
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from litex.build.generic_platform import GenericPlatform, Pins
from litex.gen import LiteXModule
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCCore
from litex.soc.interconnect import axi
from migen import ClockDomain, ClockSignal, Instance, ResetSignal, Signal

RAM_BASE, RAM_BYTES = 0x4000_0000, 0x1_0000
CORE_BASE, CORE_BYTES = 0xF100_0000, 0x1000
"""Where the registers lie: in the part of a LiteX memory map that is not cached."""
CLOCK_HZ = 100_000_000


class Loomwork(LiteXModule):
    """The core of a package (`loomwork package`) as a LiteX module.

    registers: AXI4-Lite, for a slave of the SoC's bus. memory: AXI4, for a master. irq: level, active high; SoCs find
    it by this name.
    """

    def __init__(self, platform: Any, package: Path) -> None:
        description = json.loads((package / "core.json").read_text(encoding="utf-8"))
        widths = {port["name"]: port["width"] for port in description["ports"]}
        self.registers = axi.AXILiteInterface(data_width=32, address_width=32)
        self.memory = axi.AXIInterface(
            data_width=widths["m_axi_wdata"],
            address_width=widths["m_axi_awaddr"],
            id_width=widths["m_axi_awid"],
            bursting=True,
        )
        self.irq = Signal()

        signals = {"clk": ClockSignal("sys"), "rst": ResetSignal("sys"), "irq": self.irq}
        for name, interface in (("m_axi", self.memory), ("s_axil", self.registers)):
            for port in (port for port in widths if port.startswith(f"{name}_")):
                # awaddr, wdata, bresp, ...: the channel and its signal.
                channel, member = axi_names(port.removeprefix(f"{name}_"))
                signals[port] = getattr(getattr(interface, channel), member)[: widths[port]]
        sides = {port["name"]: port["direction"][0] for port in description["ports"]}
        self.specials += Instance(
            description["module"], **{f"{sides[port]}_{port}": signal for port, signal in signals.items()}
        )
        platform.add_source(str(package / "core.v"))


def axi_names(name: str) -> tuple[str, str]:
    """Channel and signal of an AXI name: `awaddr` to `aw`, `addr`."""
    channel = name[:2] if name[:2] in ("aw", "ar") else name[:1]
    return channel, name.removeprefix(channel)


def add_loomwork(soc: Any, package: Path, origin: int = CORE_BASE) -> None:
    """Put the core of a package into a SoC: registers at `origin`, memory as its processor sees it."""
    soc.loomwork = Loomwork(soc.platform, package)
    soc.bus.add_slave("loomwork", soc.loomwork.registers, SoCRegion(origin=origin, size=CORE_BYTES, cached=False))
    # The bus that is coherent with the processor's caches, where there is one.
    getattr(soc, "dma_bus", soc.bus).add_master("loomwork", soc.loomwork.memory)
    if soc.irq.enabled:
        soc.irq.add("loomwork", use_loc_if_exists=True)


class HostedSoC(SoCCore):
    """The core with RAM, and an AXI4-Lite port in place of a processor."""

    def __init__(self, package: Path) -> None:
        pins = [("sys_clk", 0, Pins(1)), ("sys_rst", 0, Pins(1)), ("irq", 0, Pins(1))]
        platform = GenericPlatform("", pins)
        super().__init__(
            platform,
            CLOCK_HZ,
            cpu_type=None,
            bus_standard="axi-lite",
            integrated_sram_size=0,
            with_uart=False,
            with_timer=False,
            ident_version=False,
        )
        self.cd_sys = ClockDomain()
        self.comb += self.cd_sys.clk.eq(platform.request("sys_clk"))
        self.comb += self.cd_sys.rst.eq(platform.request("sys_rst"))
        self.add_ram("ram", RAM_BASE, RAM_BYTES)
        host = axi.AXILiteInterface(data_width=32, address_width=32)
        platform.add_extension(host.get_ios("host"))
        self.comb += host.connect_to_pads(platform.request("host"), mode="slave")
        self.bus.add_master("host", host)
        add_loomwork(self, package)
        self.comb += platform.request("irq").eq(self.loomwork.irq)


def main() -> None:
    """Write the SoC's Verilog into a folder."""
    parser = argparse.ArgumentParser(description="A LiteX SoC with a Loomwork core, as Verilog.")
    parser.add_argument("package", type=Path, help="folder that `loomwork package` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for soc.v, soc_ram.init and core.v")
    arguments = parser.parse_args()
    soc = HostedSoC(arguments.package.resolve())
    soc.finalize()
    arguments.output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(arguments.package / "core.v", arguments.output / "core.v")
    # LiteX writes contents of memories, which `soc.v` names, into the current folder.
    with contextlib.chdir(arguments.output):
        soc.platform.get_verilog(soc, name="soc").write("soc.v")


if __name__ == "__main__":
    main()

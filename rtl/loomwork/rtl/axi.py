# SPDX-License-Identifier: Apache-2.0
"""AXI4 and AXI4-Lite as Amaranth signatures whose members carry the standard's names (AMBA AXI, ARM IHI 0022).

The signatures are flat, so that a top level can offer the same ports with a prefix: `m_axi_araddr`, `s_axil_wdata`.
"""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import Flow, In, Member, Out, Signature

from loomwork.arch.config import Config

ID_BITS = 2
"""Width of every AXI ID: enough for the readers of the core."""
BURST_INCR = 0b01
CACHE_NORMAL = 0b0011
"""Normal memory, bufferable, not cacheable: what interconnects expect of a DMA that nobody snoops."""
LITE_DATA_BITS = 32
MAX_BURST_BYTES = 1024
MAX_BURST_BEATS = 64


def _address_channel(prefix: str, config: Config) -> dict[str, Member]:
    widths = {
        "id": ID_BITS,
        "addr": config.address_bits,
        "len": 8,
        "size": 3,
        "burst": 2,
        "lock": 1,
        "cache": 4,
        "prot": 3,
        "qos": 4,
        "region": 4,
        "valid": 1,
    }
    return {**{f"{prefix}{name}": Out(width) for name, width in widths.items()}, f"{prefix}ready": In(1)}


class Axi4Read(Signature):
    """The read channels of AXI4, seen from the master; `config` gives the widths of address and data."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                **_address_channel("ar", config),
                "rid": In(ID_BITS),
                "rdata": In(8 * config.bus_bytes),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class Axi4Write(Signature):
    """The write channels of AXI4, seen from the master; `config` gives the widths of address and data."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                **_address_channel("aw", config),
                "wdata": Out(8 * config.bus_bytes),
                "wstrb": Out(config.bus_bytes),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(ID_BITS),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class Axi4Lite(Signature):
    """AXI4-Lite with 32-bit data, seen from the master. address_bits: width of a byte address."""

    def __init__(self, address_bits: int) -> None:
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awprot": Out(3),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(LITE_DATA_BITS),
                "wstrb": Out(LITE_DATA_BITS // 8),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arprot": Out(3),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(LITE_DATA_BITS),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


def flat_members(prefix: str, signature: Any) -> dict[str, Member]:
    """Ports of a top level that carry `signature`, one of the above or its flip: `<prefix>_<standard name>`."""
    return {f"{prefix}_{name}": member for name, member in signature.members.items()}


def connect_flat(m: Module, top: Any, prefix: str, interface: Any) -> None:
    """Join the interface of a submodule to the ports of `top` that `flat_members(prefix, its signature)` made."""
    for name, member in interface.signature.members.items():
        inside, outside = getattr(interface, name), getattr(top, f"{prefix}_{name}")
        m.d.comb += outside.eq(inside) if member.flow is Flow.Out else inside.eq(outside)


def drive_constants(m: Module, axi: Any, prefix: str, config: Config) -> None:
    """Drive what is the same for every burst of an address channel: `prefix` is "ar" or "aw"."""
    constants = {
        "size": (config.bus_bytes - 1).bit_length(),
        "burst": BURST_INCR,
        "lock": 0,
        "cache": CACHE_NORMAL,
        "prot": 0,
        "qos": 0,
        "region": 0,
    }
    m.d.comb += [getattr(axi, f"{prefix}{name}").eq(value) for name, value in constants.items()]

# SPDX-License-Identifier: Apache-2.0
"""The boards."""

from dataclasses import replace
from pathlib import Path

from amaranth.build import Attrs, Clock, Pins, Resource
from amaranth.vendor import GowinPlatform
from amaranth_boards.icebreaker import ICEBreakerPlatform
from amaranth_boards.resources import LEDResources, UARTResource
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from loomwork.arch.config import MID, NANO, SMALL, Config
from loomwork.fpga.boards.board import Board, Resources
from loomwork.fpga.boards.fabric import LFE5U_85F
from loomwork.fpga.boards.families import ECP5, GOWIN, ICE40
from loomwork.rtl.technology.ecp5 import Ecp5
from loomwork.rtl.technology.gowin import Gowin
from loomwork.rtl.technology.ice40 import Ice40


class TangNano20KPlatform(GowinPlatform):
    """Sipeed Tang Nano 20K, which amaranth-boards lacks. Source: Sipeed's schematic 3921, "Tang Nano 20K"."""

    part = "GW2AR-LV18QN88C8/I7"
    family = "GW2AR-18C"
    default_clk = "clk27"
    resources = (
        Resource("clk27", 0, Pins("4", dir="i"), Clock(27e6), Attrs(IO_TYPE="LVCMOS33")),
        UARTResource(0, rx="70", tx="69", attrs=Attrs(IO_TYPE="LVCMOS33", PULL_MODE="UP")),
        *LEDResources(pins="15 16 17 18 19 20", invert=True, attrs=Attrs(IO_TYPE="LVCMOS33")),
    )
    connectors = ()


ULX3S_85F = Board(
    name="ulx3s-85f",
    title="ULX3S with an ECP5 LFE5U-85F",
    device="LFE5U-85F-6BG381C",
    family=ECP5,
    platform=lambda: ULX3S_85F_Platform(toolchain="Trellis"),
    oscillator="clk25",
    oscillator_mhz=25,
    config=replace(
        MID,
        name="ulx3s",
        bus_bytes=8,
        requant_lanes=4,
        address_bits=24,
        elementwise_multiply=False,
        activation_table=False,
        deep_pipeline=True,
    ),
    memory_kib=128,
    clock_mhz=100,
    capacity=Resources(luts=83_640, registers=83_640, multipliers=156, blocks=208),
    place_arguments=("--85k", "--package", "CABGA381", "--speed", "6"),
    technology=Ecp5(logic_columns=4),
    fabric=LFE5U_85F,
    floorplan_file=Path(__file__).parent / "floorplans" / "ulx3s-85f.json",
)
"""`mid` with four lanes instead of eight, for the array takes the multipliers, and a bus of half the width, which costs
no network of MLPerf Tiny one percent; no activation table; deep pipeline."""

TANG_NANO_20K = Board(
    name="tang-nano-20k",
    title="Sipeed Tang Nano 20K with a Gowin GW2AR-18",
    device="GW2AR-LV18QN88C8/I7",
    family=GOWIN,
    platform=lambda: TangNano20KPlatform(toolchain="Apicula"),
    oscillator="clk27",
    oscillator_mhz=27,
    config=replace(SMALL, name="tang_nano", scratchpad_kib=16),
    # Scratchpad and external memory share 64 KiB of block RAM; 8 KiB are the firmware's.
    memory_kib=40,
    clock_mhz=81,
    capacity=Resources(luts=20_736, registers=15_552, multipliers=96, blocks=46),
    place_arguments=("--device", "GW2AR-LV18QN88C8/I7", "--vopt", "family=GW2A-18C"),
    technology=Gowin(),
    compact=True,
)

ICEBREAKER = Board(
    name="icebreaker",
    title="iCEBreaker with an iCE40UP5K",
    device="iCE40UP5K-SG48",
    family=ICE40,
    platform=lambda: ICEBreakerPlatform(toolchain="IceStorm"),
    oscillator="clk12",
    oscillator_mhz=12,
    # The accumulators fill their block RAMs.
    config=replace(NANO, name="icebreaker", accumulator_depth=128),
    # Scratchpad and external memory share the four SPRAMs, 128 KiB; 8 KiB are the firmware's.
    memory_kib=56,
    clock_mhz=20.25,
    capacity=Resources(luts=5_280, registers=5_280, multipliers=8, blocks=30),
    place_arguments=("--up5k", "--package", "sg48"),
    technology=Ice40(logic_elsewhere=True, holds=True),
    compact=True,
)

BOARDS = {board.name: board for board in (ULX3S_85F, TANG_NANO_20K, ICEBREAKER)}
"""By name."""


def board_of(config: Config) -> Board | None:
    """The board that is built for a configuration by default, whatever that is called."""
    return next((board for board in BOARDS.values() if board.config.hash == config.hash), None)

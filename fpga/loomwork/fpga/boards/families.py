# SPDX-License-Identifier: Apache-2.0
"""The FPGA families: which commands of the open tools go with each, and what its cells are called."""

from loomwork.fpga.boards.board import Family
from loomwork.fpga.boards.clocking import (
    ECP5_LIMITS,
    GOWIN_LIMITS,
    ICE40_LIMITS,
    ecp5_gate,
    ecp5_pll,
    gowin_pll,
    ice40_pll,
)
from loomwork.fpga.boards.output_registers import use_output_registers

# A clock enable or a reset of few flip-flops goes into the lookup tables in front of them. As a signal of its own it is
# one more wire at the end of a path, and flip-flops with different ones share no slice.
_FEW_SIGNALS = (
    "dfflegalize -cell $_DFF_?_ 01 -cell $_DFF_?P?_ r -cell $_SDFF_?P?_ r -cell $_DFFE_??_ 01 -cell $_DFFE_?P??_ r "
    "-cell $_SDFFE_?P??_ r -cell $_DLATCH_?_ x -mince 16 -minsrst 64"
)
# For the mapper a wire takes 0.3 ns unless it is told better: it is 1.5 ns and more behind the placement.
_WIRE_PS = 1500

ECP5 = Family(
    name="ecp5",
    synthesis=(
        f"synth_ecp5 -top {{top}} -run begin:map_ffs; opt_clean; {_FEW_SIGNALS}; "
        f"synth_ecp5 -top {{top}} -run map_ffs:map_luts; abc9 -W {_WIRE_PS}; clean; "
        "synth_ecp5 -top {top} -run map_cells:"
    ),
    placer="nextpnr-ecp5",
    packer="ecppack",
    constraints=("--lpf", "top.lpf"),
    routed=("--textcfg", "top.config"),
    pack_arguments=("--compress", "--input", "top.config", "--bit", "top.bit"),
    bitstream="top.bit",
    luts={"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
    registers=("TRELLIS_FF",),
    multipliers={"MULT18X18D": 1},
    blocks=("DP16KD", "PDPW16KD"),
    products=(1, 1),
    block_bits=16_384,
    block_widths=(8, 16, 32),
    lut_words=32,
    pll_limits=ECP5_LIMITS,
    pll_cell=ecp5_pll,
    # Behind a floorplan. The placer is told more of timing than by default, and goes on for longer. Router2 does not
    # get rid of the last thousands of shared wires, and its slowest ways are slower.
    place_options=(
        *("--placer", "heap", "--placer-heap-alpha", "0.04", "--placer-heap-timingweight", "30"),
        *("--router", "router1"),
    ),
    gate_cell=ecp5_gate,
    improve=use_output_registers,
)
"""Lattice ECP5."""

GOWIN = Family(
    name="gowin",
    synthesis="synth_gowin -top {top} -family gw2a -noiopads",
    placer="nextpnr-himbaechel",
    packer="gowin_pack",
    constraints=("--vopt", "cst=top.cst"),
    routed=("--write", "top.routed.json"),
    pack_arguments=("-d", "GW2A-18C", "-o", "top.fs", "top.routed.json"),
    bitstream="top.fs",
    # To nextpnr a memory, however narrow, takes a whole block of eight.
    luts={"LUT1": 1, "LUT2": 1, "LUT3": 1, "LUT4": 1, "ALU": 1, "RAM16SDP1": 8, "RAM16SDP2": 8, "RAM16SDP4": 8},
    lone_registers=0.5,
    registers=("DFF",),
    multipliers={"MULT9X9": 1, "MULT18X18": 2},
    blocks=("SDPB", "SDPX9B", "DPB", "DPX9B", "SP"),
    products=(1, 2),
    block_bits=16_384,
    block_widths=(8, 16, 32),
    lut_words=32,
    pll_limits=GOWIN_LIMITS,
    pll_cell=gowin_pll,
)
"""Gowin GW2A."""

ICE40 = Family(
    name="ice40",
    synthesis="synth_ice40 -top {top}",
    placer="nextpnr-ice40",
    packer="icepack",
    constraints=("--pcf", "top.pcf"),
    routed=("--asc", "top.asc"),
    pack_arguments=("top.asc", "top.bin"),
    bitstream="top.bin",
    luts={"SB_LUT4": 1},
    lone_registers=0.4,
    registers=("SB_DFF",),
    multipliers={"SB_MAC16": 1},
    blocks=("SB_RAM40",),
    products=(0.5, 1),  # two of 8 x 8 bits share a cell
    block_bits=4_096,
    block_widths=(8, 16),
    lut_words=0,
    pll_limits=ICE40_LIMITS,
    pll_cell=ice40_pll,
)
"""Lattice iCE40 UltraPlus."""

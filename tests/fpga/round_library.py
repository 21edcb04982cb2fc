# SPDX-License-Identifier: Apache-2.0
"""A library of standard cells and SRAM macros whose areas and delays are round numbers, and how its cells behave."""

from pathlib import Path

from loomwork.fpga.liberty import Library, read_library

_HEAD = (
    " nom_voltage : 1.2;\n delay_model : table_lookup;\n"
    ' time_unit : "1ns";\n capacitive_load_unit (1, pf);\n voltage_unit : "1V";\n current_unit : "1mA";\n'
    " slew_lower_threshold_pct_rise : 20;\n slew_lower_threshold_pct_fall : 20;\n"
    " slew_upper_threshold_pct_rise : 80;\n slew_upper_threshold_pct_fall : 80;\n"
    " input_threshold_pct_rise : 50;\n input_threshold_pct_fall : 50;\n"
    " output_threshold_pct_rise : 50;\n output_threshold_pct_fall : 50;\n"
)
_ARC = (
    ' timing () {{ related_pin : "{related}"; timing_type : {kind};'
    ' cell_rise (scalar) {{ values ("{delay}"); }} cell_fall (scalar) {{ values ("{delay}"); }}'
    ' rise_transition (scalar) {{ values ("0"); }} fall_transition (scalar) {{ values ("0"); }} }}'
)
_SETUP = (
    ' timing () {{ related_pin : "{related}"; timing_type : setup_rising;'
    ' rise_constraint (scalar) {{ values ("{time}"); }} fall_constraint (scalar) {{ values ("{time}"); }} }}'
)


def _gate(name: str, area: float, inputs: str, function: str, delay: float) -> str:
    pins = "".join(f"    pin ({pin}) {{ direction : input; capacitance : 0; }}\n" for pin in inputs)
    arcs = "".join(_ARC.format(related=pin, kind="combinational", delay=delay) for pin in inputs)
    return (
        f"  cell ({name}) {{ area : {area};\n{pins}"
        f'    pin (Y) {{ direction : output; function : "{function}"; max_capacitance : 9;{arcs} }}\n  }}\n'
    )


def standard_cells(slowness: float = 1) -> str:
    """Liberty of INV, BUF, NAND2 and DFF: 1, 2, 3 and 100 um2; 1, 2, 3 ns, and 10 ns from the clock with 5 ns of setup.

    slowness: a factor to all times.
    """
    return (
        f"library (round) {{\n{_HEAD}"
        + _gate("INV", 1, "A", "!A", slowness)
        + _gate("BUF", 2, "A", "A", 2 * slowness)
        + _gate("NAND2", 3, "AB", "!(A*B)", 3 * slowness)
        + "  cell (DFF) { area : 100;\n"
        '    ff (IQ, IQN) { clocked_on : "C"; next_state : "D"; }\n'
        "    pin (C) { direction : input; clock : true; capacitance : 0; }\n"
        f"    pin (D) {{ direction : input; capacitance : 0;{_SETUP.format(related='C', time=5 * slowness)} }}\n"
        '    pin (Q) { direction : output; function : "IQ"; max_capacitance : 9;'
        f"{_ARC.format(related='C', kind='rising_edge', delay=10 * slowness)} }}\n  }}\n}}\n"
    )


CELLS_VERILOG = """\
module INV(input A, output Y); assign Y = ~A; endmodule
module BUF(input A, output Y); assign Y = A; endmodule
module NAND2(input A, B, output Y); assign Y = ~(A & B); endmodule
module DFF(input C, D, output reg Q); always @(posedge C) Q <= D; endmodule
"""


def macro(
    name: str, address_bits: int, width: int, ports: str, area: float, *, masked: bool = True, access: float = 10
) -> str:
    """Liberty of an SRAM macro, of one port for each letter of `ports`; access: ns from the clock to the data."""
    pins = ""
    for port in ports:
        inputs = [f"{port}_{pin}" for pin in ("DLY", "WEN", "REN", "MEN", "BIST_EN")]
        setup = _SETUP.format(related=f"{port}_CLK", time=5)
        buses = {"ADDR": "address", "DIN": "word", **({"BM": "word"} if masked else {}), "BIST_DIN": "word"}
        pins += "".join(f"  pin({pin}) {{ direction : input; capacitance : 0;{setup} }}\n" for pin in inputs)
        pins += f"  pin({port}_CLK) {{ direction : input; clock : true; capacitance : 0; }}\n"
        pins += "".join(
            f"  bus({port}_{bus}) {{ bus_type : {kind}; direction : input; capacitance : 0;{setup} }}\n"
            for bus, kind in buses.items()
        )
        arc = _ARC.format(related=f"{port}_CLK", kind="rising_edge", delay=access)
        pins += (
            f"  bus({port}_DOUT) {{ bus_type : word; direction : output; max_capacitance : 9;\n"
            f"   memory_read() {{ address : {port}_ADDR; }}\n  {arc} }}\n"
        )
    return (
        f"library ({name}) {{\n{_HEAD}{_bus_type('address', address_bits)}{_bus_type('word', width)} cell({name}) {{\n"
        f"  memory() {{\n   type : ram;\n   address_width : {address_bits};\n   word_width : {width};\n  }}\n"
        f"  area : {area};\n{pins} }}\n}}\n"
    )


def _bus_type(name: str, bits: int) -> str:
    return (
        f" type ({name}) {{ base_type : array; data_type : bit; bit_width : {bits}; bit_from : {bits - 1};"
        " bit_to : 0; downto : true; }\n"
    )


def macro_verilog(name: str, address_bits: int, width: int, ports: str, *, masked: bool = True) -> str:
    """How such a macro behaves, by the datasheet of RM_IHPSG13_2P_64x32_c2 and the model of RM_IHPSG13_1P.

    Bits that one port writes while another reads the word are read wrong: as the old inverted, or as 0, by turns.
    """
    pins, reads, writes = [], "", ""
    for port in ports:
        inputs = "".join(f", {port}_{pin}" for pin in ("DLY", "WEN", "REN", "MEN", "BIST_EN"))
        mask = f", {port}_BM" if masked else ""
        pins.append(
            f"input {port}_CLK{inputs}, input [{address_bits - 1}:0] {port}_ADDR,"
            f" input [{width - 1}:0] {port}_DIN, {port}_BIST_DIN{mask}, output reg [{width - 1}:0] {port}_DOUT"
        )
        bits = f"{port}_BM" if masked else f"{{{width}{{1'b1}}}}"
        new = f"(memory[{port}_ADDR] & ~{bits} | {port}_DIN & {bits})"
        reads += f"    if ({port}_MEN && {port}_REN) {port}_DOUT <= {port}_WEN ? {new} : memory[{port}_ADDR];\n"
        for other in (other for other in ports if other != port):
            written = f"{other}_BM" if masked else f"{{{width}{{1'b1}}}}"
            reads += (
                f"    if ({port}_MEN && {port}_REN && {other}_MEN && {other}_WEN && {other}_ADDR == {port}_ADDR)\n"
                f"      {port}_DOUT <= turn ? memory[{port}_ADDR] ^ {written} : memory[{port}_ADDR] & ~{written};\n"
            )
        writes += f"    if ({port}_MEN && {port}_WEN) memory[{port}_ADDR] <= {new};\n"
    return (
        f"module {name}({', '.join(pins)});\n  reg [{width - 1}:0] memory [0:{2**address_bits - 1}];\n  reg turn;\n"
        f"  always @(posedge {ports[0]}_CLK) begin\n    turn <= ~turn;\n{reads}{writes}  end\nendmodule\n"
    )


def write_library(folder: Path) -> Library:
    """The standard cells with three macros, all of one corner."""
    (folder / "cells.lib").write_text(standard_cells())
    (folder / "one.lib").write_text(macro("ONE", 6, 8, "A", 1000))
    (folder / "two.lib").write_text(macro("TWO", 6, 8, "AB", 2000))
    (folder / "wide.lib").write_text(macro("WIDE", 6, 32, "AB", 5000.5))
    return read_library(folder)

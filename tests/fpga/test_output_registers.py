# SPDX-License-Identifier: Apache-2.0
"""Registers behind block RAM: in netlists by hand, and in one of Yosys."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from loomwork.fpga.boards.catalog import ULX3S_85F
from loomwork.fpga.boards.output_registers import use_output_registers
from loomwork.fpga.synthesis import NETLIST, TOP, script
from loomwork.fpga.yosys import find_yosys, run_script
from loomwork.rtl.block_memory import block_memory

CLOCK, OTHER_CLOCK, ENABLE = 1, 2, 3
DATA = {"A": (10, 11), "B": (20, 21)}
"""The first two bits that leave through each port."""


def memory(width: int = 18, **connections: Any) -> dict[str, Any]:
    bits = {f"DO{port}{n}": [bit] for port, pins in DATA.items() for n, bit in enumerate(pins)}
    bits |= {"CLKA": [CLOCK], "CLKB": [CLOCK], "OCEA": ["0"], "OCEB": ["1"], "RSTA": ["0"], "RSTB": ["0"]}
    bits |= {pin: [bit] for pin, bit in connections.items()}
    return {
        "type": "DP16KD",
        "parameters": {f"DATA_WIDTH_{port}": f"{width:032b}" for port in DATA}
        | {f"REGMODE_{port}": "NOREG" for port in DATA},
        "port_directions": {pin: "output" if pin.startswith("DO") else "input" for pin in bits},
        "connections": bits,
    }


def register(data: int, output: int, **changes: Any) -> dict[str, Any]:
    connections: dict[str, list[Any]] = {"DI": [data], "CLK": [CLOCK], "LSR": ["0"], "Q": [output]}
    parameters = {"CEMUX": "1 ", "CLKMUX": "CLK", "REGSET": "RESET"}
    for name, value in changes.items():
        (connections if name in ("CE", "CLK", "LSR") else parameters)[name] = value
    directions = {pin: "output" if pin == "Q" else "input" for pin in connections}
    return {"type": "TRELLIS_FF", "port_directions": directions, "connections": connections, "parameters": parameters}


def table(data: int) -> dict[str, Any]:
    return {"type": "LUT4", "port_directions": {"A": "input"}, "connections": {"A": [data]}, "parameters": {}}


def module(*cells: dict[str, Any], outside: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "ports": {"o": {"direction": "output", "bits": list(outside)}},
        "cells": {f"cell_{number}": cell for number, cell in enumerate(cells)},
    }


def registers_of(port: str, **changes: Any) -> list[dict[str, Any]]:
    return [register(bit, 100 + bit, **changes) for bit in DATA[port]]


def test_registers_of_one_port_move_into_the_memory():
    netlist = module(memory(), *registers_of("B"))
    assert use_output_registers(netlist) == 2
    (left,) = netlist["cells"].values()
    assert [left["connections"][f"DOB{n}"] for n in range(2)] == [[120], [121]]
    assert left["connections"]["OCEB"] == ["1"]
    assert (left["parameters"]["REGMODE_A"], left["parameters"]["REGMODE_B"]) == ("NOREG", "OUTREG")


def test_both_registers_of_a_wide_word_are_used_and_enabled():
    netlist = module(memory(width=36), *registers_of("A"), *registers_of("B"))
    assert use_output_registers(netlist) == 4
    (left,) = netlist["cells"].values()
    assert {left["parameters"][f"REGMODE_{port}"] for port in "AB"} == {"OUTREG"}
    assert {left["connections"][f"OCE{port}"][0] for port in "AB"} == {"1"}


def test_a_register_that_takes_the_value_by_its_second_input_moves_too():
    one, other = registers_of("B")
    for cell in (one, other):
        cell["connections"]["M"], cell["port_directions"]["M"] = cell["connections"].pop("DI"), "input"
    assert use_output_registers(module(memory(), one, other)) == 2


@pytest.mark.parametrize(
    "netlist",
    [
        module(memory(), register(20, 120), table(21)),
        module(memory(), *registers_of("B"), outside=(20,)),
        module(memory(), *registers_of("B"), register(20, 130)),  # two look at it
        module(memory(), *registers_of("B", CLK=[OTHER_CLOCK])),
        module(memory(), *registers_of("B", CLKMUX="INV")),
        module(memory(), *registers_of("B", CE=[ENABLE], CEMUX="CE")),
        module(memory(), *registers_of("B", LSR=[ENABLE])),
        module(memory(), *registers_of("B", REGSET="SET")),  # is 1 in the beginning
        module(memory(RSTB=ENABLE), *registers_of("B")),
        module(memory(width=36), *registers_of("B"), table(10)),  # the other half of the word
        module(memory(width=36, CLKA=OTHER_CLOCK), *registers_of("A"), *registers_of("B")),
        module(memory(), table(20), table(21)),
    ],
)
def test_what_is_not_a_plain_register_stays(netlist: dict[str, Any]):
    before = json.dumps(netlist)
    assert use_output_registers(netlist) == 0
    assert json.dumps(netlist) == before


class Registered(Component):
    """A memory of 512 words with a register behind it."""

    def __init__(self, width: int) -> None:
        self._width = width
        super().__init__({"i": In(9 + width + 1), "read": In(9), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = words = block_memory(self._width, 512)
        reading, writing = words.read_port(), words.write_port()
        behind = Signal(self._width, reset_less=True)
        m.d.comb += [Cat(writing.addr, writing.data, writing.en).eq(self.i), reading.addr.eq(self.read)]
        m.d.comb += [reading.en.eq(1), self.o.eq(behind)]
        m.d.sync += behind.eq(reading.data)
        return m


@pytest.mark.parametrize("width", [16, 18, 32, 36])
def test_yosys_leaves_registers_that_can_move(width: int, tmp_path: Path):
    (tmp_path / f"{TOP}.il").write_text(rtlil.convert(Registered(width), name=TOP))
    run_script(find_yosys(), script(ULX3S_85F), "stat -json", tmp_path)
    netlist = json.loads((tmp_path / NETLIST).read_text())["modules"][TOP]
    assert use_output_registers(netlist) == width
    assert Counter(cell["type"] for cell in netlist["cells"].values())["TRELLIS_FF"] == 0
    driven = {
        bit
        for cell in netlist["cells"].values()
        for pin, bits in cell["connections"].items()
        if cell["port_directions"][pin] == "output"
        for bit in bits
    }
    assert driven >= set(netlist["ports"]["o"]["bits"])

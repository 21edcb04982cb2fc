# SPDX-License-Identifier: Apache-2.0
"""Random whole networks through compiler, golden model and RTL, against tflite-micro, every bit.

LOOMWORK_RANDOM_CASES (12 by default) divided by six is how many networks each style gets on the RTL, and twice as many
on the golden model; LOOMWORK_RANDOM_SEED is where the seeds begin. A network is named by style and seed, and
`tests.networks.random_network(seed, style)` makes it again.
"""

import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from loomwork.arch.config import BASE, MID, NANO, SMALL, TINY, Config
from loomwork.arch.program import AcceleratorStep
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import Backend, run_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.verilator import MemoryTiming, VerilatorBackend
from tests.networks import STYLES, random_network
from tests.oracle import run_tflite_micro

CASES = max(1, int(os.environ.get("LOOMWORK_RANDOM_CASES", "12")) // 6)
SEED = int(os.environ.get("LOOMWORK_RANDOM_SEED", "0"))
TIMING = MemoryTiming(latency=25, stall_percent=20, seed=11)
LATE = replace(TINY, name="late", scratchpad_kib=64, deep_pipeline=True)
CONFIGS = [
    NANO,
    MID,
    BASE,
    replace(SMALL, name="narrow", cols=4, bus_bytes=4, requant_lanes=2, queue_depth=2),
    replace(BASE, name="tall", rows=32, cols=8, bus_bytes=8, requant_lanes=4),
    replace(SMALL, name="shallow", accumulator_depth=16),
    replace(NANO, name="plain", cols=2, bus_bytes=2, residual_add=False),
]


@cache
def rtl() -> VerilatorBackend:
    """One backend for all networks of a worker: the engine is built once and never reset between programs."""
    return VerilatorBackend(timing=TIMING)


def check(seed: int, style: str, config: Config, *backends: Backend, dead_filters: float = 0) -> bool:
    """Compile and run one network; returns whether its outputs vary. A refusal is of the scratchpad's size only."""
    case = random_network(seed, style, dead_filters=dead_filters)
    expected = run_tflite_micro(case.model_bytes, case.inputs)
    try:
        program = compile_model(case.model_bytes, config, name=case.name)
    except CompileError as error:
        if config is TINY and "the model does not fit" in str(error):
            return False
        raise
    assert any(isinstance(step, AcceleratorStep) for step in program.steps)
    inputs = dict(zip(program.inputs, case.inputs, strict=True))
    for backend in backends:
        outputs = run_program(program, inputs, backend).outputs
        for name, value in zip(program.outputs, expected, strict=True):
            found = outputs[name].reshape(value.shape)
            where = f"{case.name} on {config.name}, {type(backend).__name__}, output {name!r}"
            assert found.dtype == value.dtype, where
            assert np.array_equal(found, value), f"{where}: {np.sum(found != value)} of {value.size} values differ"
    return any(len(np.unique(value)) > 2 for value in expected)


@pytest.mark.parametrize("style", STYLES)
def test_networks_are_exact_on_the_golden_model(style: str) -> None:
    seeds = range(SEED, SEED + 2 * CASES)
    results = [check(seed, style, config, GoldenBackend()) for seed in seeds for config in CONFIGS]
    assert any(results), "the outputs of all these networks are constant: they find no errors"


@pytest.mark.parametrize("style", STYLES)
def test_networks_with_dead_filters_are_exact_on_the_golden_model(style: str) -> None:
    seeds, shares = range(SEED, SEED + 2 * CASES), (0.3, 0.6)
    results = [
        check(seed, style, config, GoldenBackend(), dead_filters=share)
        for seed in seeds
        for share in shares
        for config in (NANO, BASE)
    ]
    assert any(results), "the outputs of all these networks are constant: they find no errors"


@pytest.mark.parametrize("config", [TINY, SMALL, LATE], ids=lambda config: config.name)
@pytest.mark.parametrize("style", STYLES)
def test_networks_are_exact_on_the_rtl(style: str, config: Config) -> None:
    for seed in range(SEED, SEED + CASES):
        check(seed, style, config, GoldenBackend(), rtl())

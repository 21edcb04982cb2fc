# SPDX-License-Identifier: Apache-2.0
"""Random layers and small graphs through compiler, golden model and RTL, against tflite-micro, every bit.

LOOMWORK_RANDOM_CASES sets how many cases each kind gets (12 by default), LOOMWORK_RANDOM_SEED where the seeds begin.
A case is named by kind and seed, and `tests.layers.random_case(seed, kind)` makes it again.
"""

import os
from functools import cache

import numpy as np
import pytest

from loomwork.arch.config import PRESETS
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.verilator import MemoryTiming, VerilatorBackend
from tests.layers import GRAPHS, KINDS, LAYERS, Case, random_case
from tests.oracle import run_tflite_micro

CASES = int(os.environ.get("LOOMWORK_RANDOM_CASES", "12"))
SEED = int(os.environ.get("LOOMWORK_RANDOM_SEED", "0"))
# Random timing on top of random layers: a wait that the compiler forgot shows up here.
TIMING = MemoryTiming(latency=25, stall_percent=20, seed=7)
ON_HOST = ("reshape", "softmax")


@cache
def rtl() -> VerilatorBackend:
    """One backend for all cases of a worker: the engine is built once and never reset between programs."""
    return VerilatorBackend(timing=TIMING)


def check(case: Case, config_name: str) -> Program | str:
    """Compile and run one case on both backends; returns the program, or the sentence with which it was refused."""
    config = PRESETS[config_name]
    try:
        program = compile_model(case.model_bytes, config, name=case.name)
    except CompileError as error:
        return str(error)
    expected = run_tflite_micro(case.model_bytes, case.inputs)
    inputs = dict(zip(program.inputs, case.inputs, strict=True))
    for backend in (GoldenBackend(), rtl()):
        outputs = run_program(program, inputs, backend).outputs
        for name, value in zip(program.outputs, expected, strict=True):
            found = outputs[name].reshape(value.shape)
            where = f"{case.name} on {config_name}, {type(backend).__name__}"
            assert np.array_equal(found, value), f"{where}: {np.sum(found != value)} of {value.size} values differ"
    return program


@pytest.mark.parametrize("config_name", ["tiny", "small"])
@pytest.mark.parametrize("kind", KINDS)
def test_random_layers_are_exact(kind: str, config_name: str) -> None:
    results = [check(random_case(seed, kind), config_name) for seed in range(SEED, SEED + CASES)]
    programs = [result for result in results if isinstance(result, Program)]
    refusals = [result for result in results if isinstance(result, str)]
    print(f"{kind} on {config_name}: {len(programs)} of {CASES} ran; refused: {refusals}")
    if kind in LAYERS | GRAPHS and kind not in ON_HOST:
        on_accelerator = [p for p in programs if any(isinstance(step, AcceleratorStep) for step in p.steps)]
        assert len(on_accelerator) > CASES // 2, refusals

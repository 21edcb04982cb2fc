# SPDX-License-Identifier: Apache-2.0
"""Networks with activation tables through compiler, golden model and RTL: every bit, and every cycle.

The expected values are those of tflite-micro, which also runs each network with the tables' operators on the host.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from loomwork.arch.config import SMALL, TINY, Config
from loomwork.arch.isa import Combine
from loomwork.arch.program import AcceleratorStep, HostStep, Program
from loomwork.compiler.disasm import disassemble
from loomwork.compiler.driver import compile_model
from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import ModelBuilder
from loomwork.sim.backend import run_program
from loomwork.sim.cycles import predict_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.memory import MemoryTiming
from loomwork.sim.verilator import VerilatorBackend
from tests.oracle import run_tflite_micro

CONFIGS = [TINY, SMALL]
"""Two and eight lanes."""
ALONE = replace(TINY, name="tables_alone", residual_add=False, requant_lanes=4, cols=4)
WITHOUT = replace(TINY, name="no_tables", activation_table=False)

Maker = Callable[[ModelBuilder, Tensor], Tensor]


def conv(m: ModelBuilder, x: Tensor, channels: int = 6, kernel: int = 3, seed: int = 1) -> Tensor:
    weights = np.random.default_rng(seed).integers(-127, 128, (channels, kernel, kernel, x.shape[3])).astype(np.int8)
    spread = 74 * 74 * kernel * np.sqrt(x.shape[3])
    weight_scale = 64 * 0.05 / (spread * x.scale[0])
    return m.conv_2d(x, weights, None, padding="SAME", weight_scale=weight_scale, scale=0.05, zero_point=-7)


def hard_swish(m: ModelBuilder, x: Tensor) -> Tensor:
    return m.hard_swish(x, scale=0.03, zero_point=-100)


def leaky_relu(m: ModelBuilder, x: Tensor) -> Tensor:
    return m.leaky_relu(x, 0.15, scale=0.04, zero_point=-50)


def elu(m: ModelBuilder, x: Tensor) -> Tensor:
    return m.elu(x, scale=0.03, zero_point=-90)


def behind_the_convolution(m: ModelBuilder, x: Tensor) -> Tensor:
    return hard_swish(m, conv(m, x))


def alone(m: ModelBuilder, x: Tensor) -> Tensor:
    return m.tanh(x)


def one_right_behind_the_other(m: ModelBuilder, x: Tensor) -> Tensor:
    """Two convolutions, two tables; then a third in front of a sum, and a fourth behind it."""
    y = hard_swish(m, conv(m, hard_swish(m, conv(m, x)), seed=2))
    z = leaky_relu(m, conv(m, y, seed=3))
    return m.logistic(m.add(z, y, scale=0.08, zero_point=-20))


def in_front_of_a_maximum(m: ModelBuilder, x: Tensor) -> Tensor:
    return conv(m, m.max_pool_2d(hard_swish(m, conv(m, x)), (2, 2), stride=2, activation="RELU6"), seed=2)


def behind_a_maximum(m: ModelBuilder, x: Tensor) -> Tensor:
    """One that is fused, and one whose windows overlap."""
    y = leaky_relu(m, m.max_pool_2d(conv(m, x), (2, 2), stride=2))
    return elu(m, m.max_pool_2d(conv(m, y, seed=2), (3, 3), stride=2, padding="SAME"))


def in_a_row(m: ModelBuilder, x: Tensor) -> Tensor:
    """Tables and rescalings one behind the other."""
    return m.quantize(m.tanh(elu(m, m.quantize(x, scale=0.03, zero_point=9))), scale=0.02, zero_point=-3)


def over_several_blocks(m: ModelBuilder, x: Tensor) -> Tensor:
    """More blocks of channels than one, and a depthwise convolution."""
    weights = np.random.default_rng(4).integers(-127, 128, (1, 3, 3, 19)).astype(np.int8)
    y = leaky_relu(m, conv(m, x, channels=19))
    y = m.depthwise_conv_2d(y, weights, None, padding="SAME", weight_scale=0.003, scale=0.05, zero_point=4)
    return m.logistic(m.mean(hard_swish(m, y), (1, 2), scale=0.03, zero_point=-90))


NETWORKS = (
    behind_the_convolution,
    alone,
    one_right_behind_the_other,
    in_front_of_a_maximum,
    behind_a_maximum,
    in_a_row,
    over_several_blocks,
)


def model(network: Maker) -> bytes:
    m = ModelBuilder()
    m.output(network(m, m.input("x", (1, 12, 10, 5), scale=0.04, zero_point=5)))
    return m.build()


IMAGES = np.random.default_rng(8).integers(-128, 128, (2, 12, 10, 5)).astype(np.int8)


@cache
def rtl() -> VerilatorBackend:
    return VerilatorBackend(timing=MemoryTiming(latency=25), trace=True)


def check_outputs(program: Program, network: Maker, found: np.ndarray) -> None:
    for image, value in zip(IMAGES, found, strict=True):
        (expected,) = run_tflite_micro(model(network), [image[np.newaxis]])
        assert len(np.unique(expected)) > 2
        np.testing.assert_array_equal(value.reshape(expected.shape), expected, err_msg=program.config.name)


@pytest.mark.parametrize("config", [*CONFIGS, ALONE], ids=lambda config: config.name)
@pytest.mark.parametrize("network", NETWORKS)
def test_golden_model_is_exact(network: Maker, config: Config) -> None:
    program = compile_model(model(network), config)
    assert "combine=TABLE" in disassemble(program)
    outputs = run_program(program, {"x": IMAGES}, GoldenBackend()).outputs
    check_outputs(program, network, outputs[program.outputs[0]])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("network", NETWORKS)
def test_rtl_is_exact_and_as_fast_as_predicted(network: Maker, config: Config) -> None:
    program = compile_model(model(network), config)
    result = run_program(program, {"x": IMAGES}, rtl())
    check_outputs(program, network, result.outputs[program.outputs[0]])
    runs = [run for run in result.statistics[0] if run.events]
    predictions = predict_program(program, MemoryTiming(latency=25))
    for prediction, run in zip(predictions, runs, strict=True):
        assert prediction.counters == run.counters
        assert sorted(prediction.events, key=str) == sorted(run.events, key=str)


@pytest.mark.parametrize("network", [network for network in NETWORKS if network is not alone])
def test_without_tables_they_run_on_the_host(network: Maker) -> None:
    program = compile_model(model(network), WITHOUT)
    assert any(isinstance(step, HostStep) for step in program.steps)
    assert any(isinstance(step, AcceleratorStep) for step in program.steps)
    assert f"combine={Combine.TABLE.name}" not in disassemble(program)
    outputs = run_program(program, {"x": IMAGES}, GoldenBackend()).outputs
    check_outputs(program, network, outputs[program.outputs[0]])

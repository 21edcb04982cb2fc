# SPDX-License-Identifier: Apache-2.0
"""Convolutions with weight tiles of zeros: exact on both backends, in the predicted cycles, and in far fewer."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from loomwork.arch.config import PRESETS, Config
from loomwork.arch.program import Program
from loomwork.compiler.disasm import disassemble
from loomwork.compiler.driver import compile_model
from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import ModelBuilder
from loomwork.compiler.weight_tiles import weight_tiles
from loomwork.sim.backend import run_program
from loomwork.sim.cycles import predict_program, with_predicted_cycles
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.verilator import MemoryTiming, VerilatorBackend
from tests.oracle import run_tflite_micro

SPARSE = {
    name: replace(PRESETS[name], name=f"{name}_sparse", block_sparsity=True) for name in ("tiny", "small", "base")
}


def pruned(
    shape: tuple[int, int, int, int], config: Config, zeros: float, seed: int, dilation: tuple[int, int] = (1, 1)
) -> NDArray[np.int8]:
    """Random weights `[outputs, height, width, inputs]` with a share of zero tiles; the second block has nothing but
    zeros, the third one a single tile, where there are so many.
    """
    outputs, height, width, inputs = shape
    noise = np.random.default_rng(seed)
    kernel = noise.integers(-127, 128, (height, width, inputs, outputs), dtype=np.int8)
    tiles = weight_tiles(kernel.shape, config, dilation=dilation)
    blocks = -(-outputs // config.cols)
    count = -(-(int(tiles.max()) + 1) // blocks)
    off = noise.permutation(blocks * count) < round(zeros * blocks * count)
    off = off.reshape(blocks, count)
    if zeros:
        off[1:2] = True
        off[2:3] = np.arange(count) != count // 2
    kernel[(tiles >= 0) & off.ravel()[tiles]] = 0
    return np.ascontiguousarray(kernel.transpose(3, 0, 1, 2))


class Net:
    """A network of pruned convolutions for one configuration."""

    def __init__(self, config: Config, zeros: float, shape: tuple[int, int, int], seed: int = 1) -> None:
        self.model = ModelBuilder()
        self.config, self.zeros, self.seed = config, zeros, seed
        self.x = self.model.input("x", (1, *shape), scale=0.05, zero_point=3)

    def conv(
        self, x: Tensor, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, zeros: float | None = None
    ) -> Tensor:
        """zeros: a share of its own."""
        self.seed += 1
        zeros = self.zeros if zeros is None else zeros
        shape = outputs, kernel, kernel, x.shape[3]
        weights = pruned(shape, self.config, zeros, self.seed, (dilation, dilation))
        bias = np.random.default_rng(self.seed).integers(-2000, 2000, outputs, dtype=np.int32)
        spread = 74 * 74 * np.sqrt(kernel * kernel * x.shape[3] * (1 - 0.9 * zeros))
        return self.model.conv_2d(
            x,
            weights,
            bias,
            weight_scale=60 / spread,
            scale=x.scale[0],
            zero_point=-5,
            stride=stride,
            dilation=dilation,
        )

    def image(self) -> NDArray[np.int8]:
        return np.random.default_rng(7).integers(-128, 128, self.x.shape, dtype=np.int8)

    def compiled(self, *, eliminate_dead: bool = True) -> Program:
        return compile_model(self.model.build(), self.config, name="pruned", eliminate_dead=eliminate_dead)


def one_by_one(net: Net) -> Tensor:
    return net.conv(net.x, 5 * net.config.cols + 1, 1)


def three_by_three(net: Net) -> Tensor:
    return net.conv(net.conv(net.x, 3 * net.config.cols, 3), 3 * net.config.cols, 3, stride=2)


def dilated(net: Net) -> Tensor:
    return net.conv(net.x, 4 * net.config.cols, 3, dilation=2)


def fused(net: Net) -> Tensor:
    """ADD with the input of two convolutions, maximum of 2 x 2, and a convolution behind it."""
    x = net.conv(net.x, 5 * net.config.cols, 1)
    y = net.conv(net.conv(x, x.shape[3], 3), x.shape[3], 1)
    y = net.model.add(x, y, scale=0.1, zero_point=2)
    return net.conv(net.model.max_pool_2d(net.conv(y, 4 * net.config.cols, 3), 2), 10, 1, zeros=0)


def more_passes_than_bits(net: Net) -> Tensor:
    """A reduction of some more passes than the mask has bits."""
    return net.conv(net.conv(net.x, 200 * net.config.rows, 1, zeros=0), net.config.cols + 2, 1)


NETS = {
    "1x1": (one_by_one, (7, 6, 50)),
    "3x3": (three_by_three, (9, 8, 20)),
    "dilated": (dilated, (8, 8, 17)),
    "fused": (fused, (8, 8, 24)),
}
TIMING = MemoryTiming(latency=40)
STALLING = MemoryTiming(latency=25, stall_percent=20, seed=7)


@cache
def rtl(timing: MemoryTiming) -> VerilatorBackend:
    return VerilatorBackend(timing=timing)


def check(net: Net, *, eliminate_dead: bool = True) -> Program:
    """Both backends against tflite-micro, the cycle model against the RTL."""
    program = net.compiled(eliminate_dead=eliminate_dead)
    (expected,) = run_tflite_micro(net.model.build(), [net.image()])
    assert len(np.unique(expected)) > 20
    inputs, (output,) = {program.inputs[0]: net.image()}, program.outputs
    runs = {backend: run_program(program, inputs, backend) for backend in (GoldenBackend(), rtl(STALLING), rtl(TIMING))}
    for backend, run in runs.items():
        np.testing.assert_array_equal(run.outputs[output].reshape(expected.shape), expected, err_msg=str(backend))
    (steps,) = runs[rtl(TIMING)].statistics
    for prediction, statistics in zip(predict_program(program, TIMING, exact=True), steps, strict=True):
        assert prediction.counters == statistics.counters
    return program


def skips(program: Program) -> int:
    return disassemble(program).count("SKIP ")


@pytest.mark.parametrize("config_name", ["tiny", "small"])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("zeros", [0.5, 0.8])
def test_pruned_convolutions_are_exact_and_take_the_predicted_cycles(name: str, zeros: float, config_name: str) -> None:
    make, shape = NETS[name]
    net = Net(SPARSE[config_name], zeros, shape)
    net.model.output(make(net))
    program = check(net)
    assert skips(program) > 0
    totals = program.report["totals"]
    assert 0.4 < totals["skipped_tiles"] / totals["weight_tiles"] < 0.95


def test_passes_behind_the_mask_are_executed_and_exact() -> None:
    net = Net(SPARSE["tiny"], 0.5, (2, 2, 8))
    net.model.output(more_passes_than_bits(net))
    # Channels that only zero tiles read are dead.
    program = check(net, eliminate_dead=False)
    layer = program.report["layers"][-1]
    assert layer["weight_tiles"] == 2 * 200
    # The second block is zero but for one pass that is executed all the same.
    assert 199 + 0.4 * 192 < layer["skipped_tiles"] < 199 + 0.6 * 192


@pytest.mark.parametrize("config_name", ["small", "base"])
@pytest.mark.parametrize("name", NETS)
def test_without_zero_tiles_nothing_changes(name: str, config_name: str) -> None:
    make, shape = NETS[name]
    dense = Net(SPARSE[config_name], 0, shape)
    dense.model.output(make(dense))
    program = dense.compiled()
    assert skips(program) == 0
    assert program.report["totals"]["skipped_tiles"] == 0
    plain = compile_model(dense.model.build(), PRESETS[config_name], name="pruned")
    assert program.steps == plain.steps


def test_without_the_hardware_zero_tiles_are_computed() -> None:
    net = Net(PRESETS["small"], 0.8, (7, 6, 50))
    net.model.output(one_by_one(net))
    assert skips(net.compiled()) == 0


@pytest.mark.parametrize(("channels", "kernel"), [(64, 3), (256, 1)], ids=["3x3", "1x1"])
def test_half_the_tiles_take_nearly_half_the_time(channels: int, kernel: int) -> None:
    """Of a layer whose input is there: the second one of two."""
    cycles: dict[float, int] = {}
    count = kernel * kernel * (channels // 16) ** 2
    for zeros in (0.0, 0.5, 0.75):
        model = ModelBuilder()
        x = model.input("x", (1, 8, 8, channels), scale=0.05, zero_point=3)
        for seed in range(2):
            noise = np.random.default_rng(seed)
            weights = noise.integers(1, 128, (kernel, kernel, channels, channels), dtype=np.int8)
            tiles = weight_tiles(weights.shape, SPARSE["base"])
            weights[(noise.permutation(count) < zeros * count)[tiles]] = 0
            x = model.conv_2d(x, weights.transpose(3, 0, 1, 2), weight_scale=0.0002, scale=0.1, zero_point=0)
        model.output(x)
        program = with_predicted_cycles(compile_model(model.build(), SPARSE["base"], name="layers"))
        cycles[zeros] = program.report["layers"][1]["predicted_cycles"]
        assert program.report["totals"]["skipped_tiles"] == pytest.approx(2 * zeros * count)
    assert cycles[0.0] > 1.8 * cycles[0.5]
    assert cycles[0.5] > 1.5 * cycles[0.75]

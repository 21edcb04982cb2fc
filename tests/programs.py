# SPDX-License-Identifier: Apache-2.0
"""Small programs made by hand, without compiler, to try out what reads and runs programs; and a network to compile."""

from collections.abc import Sequence

import numpy as np

from loomwork.arch.command import Command, encode
from loomwork.arch.config import TINY, Config
from loomwork.arch.isa import Unit, Window, isa_hash
from loomwork.arch.program import AcceleratorStep, HostStep, Placement, Program, Tensor
from loomwork.compiler.tflite_writer import ModelBuilder
from loomwork.sim.backend import StepStatistics

SCALE, ZERO_POINT = 0.25, 3


def copy_commands(config: Config, rows: int, words: int) -> list[Command]:
    """LOAD `rows` image rows of `words` scratchpad words from INPUTS and STORE them to OUTPUTS."""
    transfer = {
        "offset": 0,
        "row_stride": words * config.rows,
        "base": 0,
        "pitch": words,
        "row": 0,
        "rows": rows,
        "words": words,
    }
    return [
        Command("LOAD", {"window": Window.INPUTS, **transfer}),
        Command("STORE", {"window": Window.OUTPUTS, **transfer}, {Unit.LOAD: 1}),
        Command("END"),
    ]


def copy_step(
    config: Config = TINY, height: int = 3, row_bytes: int = 5, *, source: str = "x", target: str = "y"
) -> AcceleratorStep:
    """A step whose output is its input: `height` rows of `row_bytes` bytes."""
    words = -(-row_bytes // config.rows)
    place = {"offset": 0, "row_stride": words * config.rows, "rows": height, "row_bytes": row_bytes}
    return AcceleratorStep(
        commands=b"".join(map(encode, copy_commands(config, height, words))),
        constants=b"",
        inputs=(Placement(tensor=source, **place),),
        outputs=(Placement(tensor=target, **place),),
    )


def program(
    steps: Sequence[AcceleratorStep | HostStep],
    tensors: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    config: Config = TINY,
) -> Program:
    """A program with an empty report, for the current command set."""
    return Program(
        config=config,
        isa_hash=isa_hash(),
        tensors=tuple(tensors),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        steps=tuple(steps),
    )


def copy_program(config: Config = TINY) -> Program:
    """`y = x`, int8 `[1, 3, 5, 1]`, in one accelerator step."""
    tensors = [Tensor(name=name, shape=(1, 3, 5, 1), dtype="int8", scale=SCALE, zero_point=ZERO_POINT) for name in "xy"]
    return program([copy_step(config)], tensors, "x", "y", config)


def quantize_step(shape: tuple[int, ...], *, source: str = "real", target: str = "x") -> HostStep:
    """A host step that quantizes float32 to int8 with SCALE and ZERO_POINT."""
    model = ModelBuilder()
    model.output(model.quantize(model.input(source, shape, dtype="float32"), scale=SCALE, zero_point=ZERO_POINT))
    return HostStep(
        model=model.build(), inputs=(source,), outputs=(target,), operators=(("QUANTIZE", "floating point"),)
    )


def quantize_copy_program(config: Config = TINY) -> Program:
    """Float32 `real` `[1, 3, 5, 1]` is quantized on the host and copied by the accelerator to int8 `y`."""
    shape = (1, 3, 5, 1)
    tensors = [
        Tensor(name="real", shape=shape, dtype="float32"),
        *(Tensor(name=name, shape=shape, dtype="int8", scale=SCALE, zero_point=ZERO_POINT) for name in "xy"),
    ]
    return program([quantize_step(shape), copy_step(config)], tensors, ["real"], "y", config)


def two_input_program(config: Config = TINY) -> Program:
    """Copies `a` to `c` and `b` to `d` in two steps: several inputs and outputs."""
    tensors = [Tensor(name=name, shape=(1, 3, 5, 1), dtype="int8") for name in "abcd"]
    steps = [copy_step(config, source="a", target="c"), copy_step(config, source="b", target="d")]
    return program(steps, tensors, "ab", "cd", config)


def network() -> bytes:
    """Convolution, maximum pooling, dense layer and softmax, `[1, 6, 6, 3]` int8 to `[1, 5]` int8."""
    noise = np.random.default_rng(3)
    model = ModelBuilder()
    image = model.input("image", (1, 6, 6, 3), scale=0.02, zero_point=-4)
    kernel = noise.integers(-127, 128, (6, 3, 3, 3), dtype=np.int8)
    features = model.conv_2d(image, kernel, weight_scale=0.01, scale=0.05, zero_point=-128, activation="RELU")
    pooled = model.max_pool_2d(features, (2, 2), padding="VALID")
    weights = noise.integers(-127, 128, (5, 6 * pooled.shape[1] * pooled.shape[2]), dtype=np.int8)
    model.output(model.softmax(model.fully_connected(pooled, weights, weight_scale=0.01, scale=0.3, zero_point=5)))
    return model.build()


class CopyBackend:
    """A backend for these programs alone: copies the INPUTS window to OUTPUTS, and keeps count."""

    def __init__(self) -> None:
        self.images: list[int] = []

    def run_step(self, config, step, inputs, output_bytes):
        self.images.append(len(inputs))
        outputs = np.zeros((len(inputs), output_bytes), np.uint8)
        outputs[:] = inputs[:, :output_bytes]
        return outputs, [StepStatistics(counters={"cycles": 100 + index}) for index in range(len(inputs))]

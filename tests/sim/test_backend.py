# SPDX-License-Identifier: Apache-2.0
"""Running programs: inputs are checked, steps are chained, batches loop, whatever the backend."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from loomwork.arch.program import Tensor
from loomwork.sim.backend import Result, RunError, StepStatistics, check_inputs, run_program
from tests.programs import (
    SCALE,
    ZERO_POINT,
    CopyBackend,
    copy_program,
    copy_step,
    program,
    quantize_copy_program,
    two_input_program,
)

GENERATOR = np.random.default_rng(7)


def images(count: int) -> np.ndarray:
    return GENERATOR.integers(-128, 128, (count, 3, 5, 1), dtype=np.int8)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 40])
def test_a_batch_of_any_size_comes_back_in_order(count):
    batch = images(count)
    backend = CopyBackend()
    seen: list[tuple[int, int]] = []
    result = run_program(copy_program(), {"x": batch}, backend, progress=lambda done, all_: seen.append((done, all_)))
    assert np.array_equal(result.outputs["y"], batch)
    assert result.outputs["y"].dtype == np.int8
    assert sum(backend.images) == count == len(result.statistics)
    assert seen[-1] == (count, count)
    assert [done for done, _ in seen] == np.cumsum(backend.images).tolist()


def test_one_image_may_come_without_its_batch_dimension():
    image = images(1)
    result = run_program(copy_program(), {"x": image[0]}, CopyBackend())
    assert np.array_equal(result.outputs["y"], image)


def test_host_and_accelerator_steps_are_chained():
    real = GENERATOR.uniform(-40, 40, (20, 3, 5, 1)).astype(np.float32)
    result = run_program(quantize_copy_program(), {"real": real}, CopyBackend())
    expected = np.clip(np.round(real / np.float32(SCALE)) + ZERO_POINT, -128, 127).astype(np.int8)
    assert np.array_equal(result.outputs["y"], expected)


def test_several_inputs_and_outputs_keep_their_names():
    a, b = images(3), images(3)
    result = run_program(two_input_program(), {"b": b, "a": a}, CopyBackend())
    assert list(result.outputs) == ["c", "d"]
    assert np.array_equal(result.outputs["c"], a)
    assert np.array_equal(result.outputs["d"], b)
    assert [len(image) for image in result.statistics] == [2, 2, 2]


def test_an_output_may_be_listed_twice():
    batch = images(3)
    tensors = [Tensor(name=name, shape=(1, 3, 5, 1), dtype="int8") for name in "xy"]
    result = run_program(program([copy_step()], tensors, "x", "yy"), {"x": batch}, CopyBackend())
    assert list(result.outputs) == ["y"]
    assert np.array_equal(result.outputs["y"], batch)


def test_an_output_has_the_shape_of_its_tensor():
    flat = [Tensor(name="x", shape=(1, 3, 5, 1), dtype="int8"), Tensor(name="y", shape=(1, 15), dtype="int8")]
    batch = images(2)
    result = run_program(program([copy_step()], flat, "x", "y"), {"x": batch}, CopyBackend())
    assert np.array_equal(result.outputs["y"], batch.reshape(2, 15))


def test_a_program_without_steps_returns_its_input():
    batch = images(2)
    tensors = [Tensor(name="x", shape=(1, 3, 5, 1), dtype="int8")]
    assert np.array_equal(run_program(program([], tensors, "x", "x"), {"x": batch}, CopyBackend()).outputs["x"], batch)


def test_the_input_array_is_not_changed():
    batch = images(2)
    before = batch.copy()
    run_program(copy_program(), {"x": batch}, CopyBackend())
    assert np.array_equal(batch, before)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "input 'x' is missing; the program takes 'x' (int8 [1, 3, 5, 1])"),
        ({"z": images(1)}, "input 'x' is missing"),
        ({"x": images(1), "z": images(1)}, "the program has no input 'z'; it takes 'x' (int8 [1, 3, 5, 1])"),
        ({"x": images(1).astype(np.uint8)}, "input 'x' must be int8, not uint8"),
        ({"x": images(1).astype(">i2")}, "input 'x' must be int8, not >i2"),
        ({"x": np.array(["a"])}, "input 'x' must be int8, not <U1"),
        ({"x": np.array([None])}, "input 'x' must be int8, not object"),
        ({"x": images(0)}, "input 'x' holds no image: its shape is 0x3x5x1"),
        (
            {"x": images(2)[:, :2]},
            "'x' must have shape 1x3x5x1 (any number of images in place of the first 1), not 2x2x5",
        ),
        ({"x": images(2)[np.newaxis]}, "not 1x2x3x5x1"),
        ({"x": images(1).reshape(1, 15)}, "not 1x15"),
        ({"x": np.array(3, np.int8)}, "not of a scalar"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs, sentence):
    backend = CopyBackend()
    with pytest.raises(RunError, match=re.escape(sentence)):
        run_program(copy_program(), inputs, backend)
    assert backend.images == []


def test_inputs_must_agree_on_the_number_of_images():
    with pytest.raises(RunError, match=r"different numbers of images: \{'a': 2, 'b': 3\}"):
        run_program(two_input_program(), {"a": images(2), "b": images(3)}, CopyBackend())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_cannot_be_quantized_are_named_with_their_place(value):
    real = np.zeros((2, 3, 5, 1), np.float32)
    real[1, 2, 3, 0] = value
    with pytest.raises(RunError, match=rf"'real' must hold finite numbers, not {value} as at index \[1, 2, 3, 0\]"):
        check_inputs(quantize_copy_program(), {"real": real})


def test_inputs_are_returned_as_a_batch():
    batch = images(2)
    assert np.array_equal(check_inputs(copy_program(), {"x": batch})["x"], batch)
    assert check_inputs(copy_program(), {"x": batch[0]})["x"].shape == (1, 3, 5, 1)


def test_a_scalar_tensor_may_be_a_scalar_or_a_batch():
    scalar = replace(copy_program(), tensors=(Tensor(name="x", shape=(), dtype="int8"),), outputs=("x",), steps=())
    assert check_inputs(scalar, {"x": np.array(3, np.int8)})["x"].shape == (1,)
    assert check_inputs(scalar, {"x": np.zeros(4, np.int8)})["x"].shape == (4,)


def test_cycles_are_added_up_per_image():
    steps = [[StepStatistics(counters={"cycles": 5}), StepStatistics(counters={"cycles": 7, "read_beats": 1})]] * 2
    result = Result(outputs={}, statistics=steps)
    assert result.cycles_per_image == [12, 12]
    assert Result(outputs={}, statistics=[[StepStatistics()]]).cycles_per_image == []


def test_statistics_are_plain_values():
    result = run_program(two_input_program(), {"a": images(3), "b": images(3)}, CopyBackend())
    config = copy_program().config
    values = json.loads(json.dumps(result.to_dict(config)))
    assert values["config"] == config.to_dict()
    assert values["images"] == 3
    assert values["cycles_per_image"] == [200, 202, 204]
    assert values["steps"][2] == [{"cycles": 102}, {"cycles": 102}]

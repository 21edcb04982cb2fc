# SPDX-License-Identifier: Apache-2.0
"""Operators of quantized ONNX models that only move numbers."""

from typing import Any

import numpy as np
import pytest

from loomwork.compiler.graph import Rearrange
from loomwork.compiler.importers.onnx import import_onnx
from tests.compiler.onnx_check import check, host_operators, layers
from tests.onnx_models import SCALE, ZERO_POINT, QdqBuilder

TYPES = pytest.mark.parametrize("dtype", ["int8", "uint8"])
SAME: dict[str, Any] = {"scale": SCALE, "zero_point": ZERO_POINT}
RESCALED: dict[str, Any] = {"scale": 0.0413}
IMAGE = (1, 8, 9, 10)


@TYPES
@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        (((1, 8, 9, 10), (1, 5, 9, 10), (1, 3, 9, 10)), 1),
        (((1, 8, 9, 10), (1, 8, 3, 10)), 2),
        (((1, 8, 9, 10), (1, 8, 9, 5)), 3),
        (((1, 8, 9, 10), (1, 8, 9, 5)), -1),
        (((1, 20, 30), (1, 7, 30)), 1),
        (((1, 20, 30), (1, 20, 5)), 2),
        (((1, 600), (1, 400)), 1),
        (((20, 30), (11, 30)), 0),
    ],
)
def test_concat(shapes: tuple[tuple[int, ...], ...], axis: int, dtype: str) -> None:
    """Of tensors with scales of their own; the first is stored as the result is."""
    m = QdqBuilder(dtype=dtype)
    scales = [SCALE, 0.0371, 0.0713]
    parts = [m.input(shape, scale=scale) for shape, scale in zip(shapes, scales, strict=False)]
    m.output(m.quantize(m.node("Concat", *parts, axis=axis), **SAME), stored=True)
    (layer,) = layers(check(m.case()))
    assert isinstance(layer, Rearrange)


def test_concat_of_stored_numbers_and_one_tensor_twice() -> None:
    m = QdqBuilder(stored=True)
    a, b = (m.stored(m.input(IMAGE)) for _ in range(2))
    m.output(m.dequantize(m.node("Concat", a, b, a, axis=1), **SAME), stored=True)
    check(m.case())


def test_concat_with_a_constant_is_left_to_the_host() -> None:
    m = QdqBuilder()
    y = m.quantize(m.node("Relu", m.input(IMAGE)), zero_point=-128)
    y = m.quantize(m.node("Concat", y, m.weights((1, 2, 9, 10)), axis=1))
    m.output(m.quantize(m.node("Relu", y), zero_point=-128))
    check(m.case(), host=["Concat"])


SLICES: dict[str, tuple[tuple[int, ...], list[list[int]]]] = {
    "channels": (IMAGE, [[2], [7], [1]]),
    "rows and columns": (IMAGE, [[1, 3], [8, 9], [2, 3]]),
    "steps": (IMAGE, [[1, 0], [9, 10], [2, 3], [2, 3]]),
    "step of channels": (IMAGE, [[1], [8], [1], [3]]),
    "backwards": (IMAGE, [[-1], [-100], [3], [-1]]),
    "backwards in steps": (IMAGE, [[8, 9], [0, -100], [2, 3], [-2, -3]]),
    "backwards in channels": (IMAGE, [[7], [0], [1], [-1]]),
    "negative axis": (IMAGE, [[2], [-1], [-1]]),
    "1-D": ((1, 8, 60), [[3], [57], [2], [2]]),
    "vector": ((1, 800), [[5], [700], [1], [3]]),
}


@TYPES
@pytest.mark.parametrize("kind", SLICES)
def test_slice(kind: str, dtype: str) -> None:
    shape, numbers = SLICES[kind]
    m = QdqBuilder(dtype=dtype)
    m.output(m.quantize(m.node("Slice", m.input(shape), *map(m.constant, numbers)), scale=0.0413), stored=True)
    check(m.case(8))


@TYPES
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_split(axis: int, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    sizes = {1: [3, 1, 4], 2: [5, 4], -1: [2, 3, 5]}[axis]
    for place, part in enumerate(m.nodes("Split", m.input(IMAGE), m.constant(sizes), results=len(sizes), axis=axis)):
        m.output(m.quantize(part, **(SAME if place else RESCALED)), stored=True)
    check(m.case(16))


def test_split_into_equal_parts() -> None:
    m = QdqBuilder(opset=18)
    for part in m.nodes("Split", m.input(IMAGE), results=3, axis=1, num_outputs=3):
        m.output(m.quantize(part, **SAME))
    check(m.case(16))


@TYPES
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("value", [None, 0.0, 1.5, 1000.0])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 3, 1], [0, 3, 1, 2, 0, 9, 0, 1], [0, 0, -1, 2, 0, 0, 3, -2]])
def test_pad_with_a_constant(pads: list[int], value: float | None, rescaled: bool, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype)
    values = [] if value is None else [m.constant(value)]
    y = m.node("Pad", m.input(IMAGE), m.constant(pads), *values)
    m.output(m.quantize(y, **(RESCALED if rescaled else SAME)), stored=True)
    check(m.case(2))


@TYPES
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_pad_with_what_is_there(mode: str, dtype: str) -> None:
    m = QdqBuilder(dtype=dtype, opset=19)
    y = m.node("Pad", m.input(IMAGE), m.constant([0, 0, 1, 2, 0, 0, 3, 1]), mode=mode)
    m.output(m.quantize(y, **SAME), stored=True)
    check(m.case(2))


def test_pad_of_some_axes() -> None:
    m = QdqBuilder(opset=18)
    y = m.node("Pad", m.input(IMAGE), m.constant([1, 2, 3, 0]), "", m.constant([2, -1]))
    m.output(m.quantize(y, **SAME))
    check(m.case(2))


def test_pad_of_stored_numbers() -> None:
    """Pads with the zero that is stored, not with the real one."""
    m = QdqBuilder(stored=True)
    x = m.stored(m.input(IMAGE))
    y = m.node("Pad", x, m.constant([0, 0, 1, 1, 0, 0, 1, 1]), m.constant(np.array(-37, np.int8)))
    z = m.node("Pad", x, m.constant([0, 1, 0, 0, 0, 0, 0, 2]))
    m.output(m.dequantize(y, **SAME), stored=True)
    m.output(m.dequantize(z, **SAME), stored=True)
    check(m.case(2))


def test_pad_of_stored_unsigned_numbers() -> None:
    m = QdqBuilder(stored=True, dtype="uint8")
    x = m.stored(m.input(IMAGE))
    y = m.node("Pad", x, m.constant([0, 0, 1, 1, 0, 0, 1, 1]), m.constant(np.array(201, np.uint8)))
    z = m.node("Pad", x, m.constant([0, 1, 0, 0, 0, 0, 0, 2]))
    m.output(m.dequantize(y, **SAME), stored=True)
    m.output(m.dequantize(z, **SAME), stored=True)
    check(m.case(2))


RESIZES: dict[str, tuple[list[float] | None, list[int] | None, dict[str, Any]]] = {
    "twice": ([1, 1, 2, 2], None, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    "half pixel": ([1, 1, 3, 2], None, {}),
    "half pixel, not whole": ([1, 1, 1.75, 2.375], None, {}),
    "align corners": (None, [1, 8, 13, 21], {"coordinate_transformation_mode": "align_corners"}),
    "smaller": ([1, 1, 0.5, 0.5], None, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"}),
    "pytorch half pixel": (None, [1, 8, 18, 10], {"coordinate_transformation_mode": "pytorch_half_pixel"}),
    "prefer ceil": (None, [1, 8, 12, 15], {"nearest_mode": "round_prefer_ceil"}),
    "channels": ([1, 2, 1, 1], None, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
}


@TYPES
@pytest.mark.parametrize("kind", RESIZES)
def test_resize_to_the_nearest(kind: str, dtype: str) -> None:
    factors, sizes, attributes = RESIZES[kind]
    m = QdqBuilder(dtype=dtype)
    wanted = ["", m.constant([float(f) for f in factors])] if factors else ["", "", m.constant(sizes)]
    m.output(m.quantize(m.node("Resize", m.input(IMAGE), *wanted, mode="nearest", **attributes), **SAME), stored=True)
    check(m.case(3))


def test_upsample_of_old_opsets() -> None:
    m = QdqBuilder(opset=10)
    y = m.node("Resize", m.input(IMAGE), m.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    m.output(m.quantize(y, **SAME))
    check(m.case(3))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_that_mixes_numbers_is_left_to_the_host(mode: str) -> None:
    m = QdqBuilder()
    y = m.quantize(m.node("Relu", m.input(IMAGE)), zero_point=-128)
    y = m.quantize(m.node("Resize", y, "", m.constant([1.0, 1.0, 2.0, 2.0]), mode=mode))
    m.output(m.quantize(m.node("Relu", y), zero_point=-128))
    (reason,) = host_operators(check(m.case(3), host=["Resize"])).values()
    assert reason == "it mixes numbers"


OTHERS: dict[str, tuple[tuple[int, ...], str, list[Any], dict[str, Any]]] = {
    "depth to space, DCR": ((1, 12, 9, 6), "DepthToSpace", [], {"blocksize": 2}),
    "depth to space, CRD": ((1, 12, 9, 6), "DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    "depth to space by 3": ((1, 18, 5, 6), "DepthToSpace", [], {"blocksize": 3}),
    "space to depth": ((1, 3, 12, 10), "SpaceToDepth", [], {"blocksize": 2}),
    "tile": ((1, 3, 6, 7), "Tile", [[1, 2, 2, 3]], {}),
    "expand": ((1, 6, 1, 7), "Expand", [[1, 6, 5, 7]], {}),
    "gather": (IMAGE, "Gather", [[5, 0, 0, 7, 2]], {"axis": 1}),
    "gather rows": (IMAGE, "Gather", [[[8, 0], [3, 3]]], {"axis": 2}),
    "gather one": (IMAGE, "Gather", [-2], {"axis": 3}),
}


@TYPES
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_moves(kind: str, rescaled: bool, dtype: str) -> None:
    shape, op, constants, attributes = OTHERS[kind]
    m = QdqBuilder(dtype=dtype)
    y = m.node(op, m.input(shape), *map(m.constant, constants), **attributes)
    m.output(m.quantize(y, **(RESCALED if rescaled else SAME)), stored=True)
    (layer,) = layers(check(m.case(3)))
    assert isinstance(layer, Rearrange)


def test_moves_that_are_clamped() -> None:
    m = QdqBuilder()
    y = m.node("Relu", m.node("Concat", m.input(IMAGE), m.input(IMAGE, scale=0.0371), axis=1))
    m.output(m.quantize(y, **SAME))
    y = m.node("Clip", m.node("Pad", m.input(IMAGE), m.constant([0, 0, 1, 1, 0, 0, 1, 1])), m.constant(0.5))
    m.output(m.quantize(y, scale=0.0413))
    check(m.case(2))


def test_a_size_on_which_onnx_and_its_runtime_disagree() -> None:
    """10 * 2.3 in float32 is just below 23 or just above, as it is computed."""
    m = QdqBuilder()
    x = m.quantize(m.node("Relu", m.input(IMAGE)), zero_point=-128)
    y = m.node("Resize", x, "", m.constant([1.0, 1.0, 1.7, 2.3]), mode="nearest")
    m.output(m.quantize(y, **SAME))
    (reason,) = host_operators(import_onnx(m.model(), "model")).values()
    assert reason.startswith("ONNX Runtime makes (1, 8, 15, 23) of it")

# SPDX-License-Identifier: Apache-2.0
"""Operators that only move numbers: where each number of their result comes from, and the rectangles that this makes.

Where it comes from is asked of ONNX Runtime: the operator runs once on tensors that hold their own positions. So every
attribute and corner case of Concat, Slice, Pad, Resize (nearest), DepthToSpace, ... is the runtime's own.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.graph import FeatureMap, Move, Rearrange, Requantize
from loomwork.compiler.importers.onnx_arithmetic import clamp, quantized, rescaling, taken_over
from loomwork.compiler.importers.onnx_codes import offset
from loomwork.compiler.importers.onnx_evaluate import evaluate
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_sight import Built, Sight
from loomwork.compiler.importers.onnx_units import Unit, stored_weights

MAX_MOVES = 512
"""Rectangles of one operator; of more, it is better left to the host."""
MAX_PERIOD = 8
"""Largest distance of pixels in the result whose neighbours come from elsewhere."""
LARGEST_POSITION = 1 << 24
"""Positions up to here are exact in float32."""
_FILL = -1

Places = NDArray[np.int64]


def rearrange(unit: Unit, sight: Sight) -> Built:
    """The unit as rectangles that are copied."""
    return _rearranged(unit, sight, _origins(unit))


def copy(unit: Unit, sight: Sight) -> Built:
    """A view, copied: its places say already where each number is."""
    return _rearranged(unit, sight, np.arange(sight.places[0].size))


def _rearranged(unit: Unit, sight: Sight, origins: Places) -> Built:
    sizes = [place.size for place in sight.places]
    starts = np.cumsum([0, *sizes])
    # From positions in the tensors as the network has them to bytes of the maps, all maps one behind the other.
    lookup = np.concatenate([place.reshape(-1) + start for place, start in zip(sight.places, starts, strict=False)])
    wanted = np.where(origins == _FILL, _FILL, lookup[origins])
    by_byte = np.empty_like(wanted)
    by_byte[sight.result.reshape(-1)] = wanted
    output = sight.output
    moves = _fewest_moves(by_byte, starts, sight.inputs, output, _fill_value(unit))
    names = [feature_map.name for feature_map in sight.inputs]
    layer = Rearrange(
        name=unit.name,
        operator=unit.node.op,
        input=names[0],
        others=tuple(names[1:]),
        output=output.name,
        moves=moves,
        requantize=tuple(_rule(unit, which) for which in range(len(names))),
    )
    return Built(layers=(layer,))


def _rule(unit: Unit, which: int) -> Requantize:
    if unit.read[which].quantization == unit.quantization:
        low, high = clamp(unit)
        return taken_over(low, high)
    return rescaling(unit, which)


def _origins(unit: Unit) -> Places:
    """For each number of the result, row-major, its position among all numbers that are read; _FILL for padding."""
    node = onnx.NodeProto()
    node.CopyFrom(unit.node.proto)
    feed: dict[str, NDArray[np.generic]] = {}
    constants: list[onnx.TensorProto] = []
    start = 0
    for position, (name, source) in enumerate(zip(unit.node.inputs, unit.sources, strict=True)):
        if not name:
            continue
        node.input[position] = f"input{position}"
        if source is None:
            data = unit.constant(position)
            assert data is not None
            if unit.node.op == "Pad" and position == 2:
                data = np.array(_FILL, np.float32)
            constants.append(onnx.numpy_helper.from_array(np.asarray(data), node.input[position]))
            continue
        shape = source.index.shape
        values = np.arange(start, start + source.index.size, dtype=np.float32).reshape(shape)
        start += source.index.size
        feed[node.input[position]] = values
    if start > LARGEST_POSITION:
        raise MisfitError(f"it moves {start} numbers; the accelerator's compiler follows {LARGEST_POSITION}")
    if unit.node.op == "Pad" and (len(node.input) < 3 or not node.input[2]):
        while len(node.input) < 2:
            node.input.append("")
        if len(node.input) < 3:
            node.input.append("fill")
        node.input[2] = "fill"
        constants.append(onnx.numpy_helper.from_array(np.array(_FILL, np.float32), "fill"))
    output = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, unit.result_shape)
    result = evaluate(unit.model, [node], feed, constants, output)
    found = result.reshape(-1)
    if result.shape != unit.result_shape:
        raise MisfitError(f"ONNX Runtime makes {result.shape} of it, the model says {unit.result_shape}")
    if not np.array_equal(found, np.rint(found)):
        raise MisfitError("it mixes numbers")
    return found.astype(np.int64)


def _fill_value(unit: Unit) -> int | None:
    """What Pad writes, as it is stored."""
    if unit.node.op != "Pad":
        return None
    given = unit.constant(2) if unit.has(2) else None
    value = 0.0 if given is None else float(given.reshape(-1)[0])
    if unit.quantization is None:
        # Numbers taken over as they are: the value is stored, not real.
        weights = stored_weights(unit.model, unit.node.inputs[2]) if unit.has(2) else None
        stored = value - offset(unit.model.values[unit.output].dtype)
        return int(np.clip(stored if weights is None else 0, INT8_MIN, INT8_MAX))
    return quantized(min(max(value, unit.low), unit.high), unit.quantization)


def _fewest_moves(
    by_byte: Places, starts: Places, inputs: tuple[FeatureMap, ...], output: FeatureMap, fill: int | None
) -> tuple[Move, ...]:
    """The rectangles that make up a result, once of pixels, once of rows as single long pixels. Raises MisfitError.

    by_byte: for each byte of the result, the byte of all maps that are read, one behind the other.
    """
    found: list[tuple[Move, ...]] = []
    for pixels in (True, False):
        grid = by_byte.reshape(output.height, output.width if pixels else 1, -1)
        depths = [feature_map.channels if pixels else feature_map.row_bytes for feature_map in inputs]
        try:
            found.append(tuple(_moves(grid, starts, inputs, depths, fill)))
        except MisfitError:
            continue
    if not found:
        raise MisfitError(f"it moves numbers in more than {MAX_MOVES} rectangles")
    return min(found, key=len)


def _moves(
    grid: Places, starts: Places, inputs: tuple[FeatureMap, ...], depths: list[int], fill: int | None
) -> Iterator[Move]:
    """Rectangles. grid: `[height, width, channels]`, bytes of the maps that are read. depths: channels of these."""
    source = np.searchsorted(starts[1:], grid, side="right")
    source[grid == _FILL] = 0
    local = grid - starts[source]
    rows = np.array([feature_map.row_bytes for feature_map in inputs])[source]
    deep = np.array(depths)[source]
    parts = np.stack([source, local // rows, local % rows // deep, local % deep], axis=-1)
    parts[grid == _FILL] = _FILL
    made = 0
    for first, end in _runs(parts):
        pixels = parts[:, :, first]
        for move in _rectangles(pixels, (0, 0), (1, 1)):
            made += 1
            if made > MAX_MOVES:
                raise MisfitError(f"it moves numbers in more than {MAX_MOVES} rectangles")
            if move.fill is None:
                yield replace(move, target_channel=first, channels=end - first)
                continue
            # What is filled reads as many channels as there are, and drops what it reads.
            for channel in range(first, end, depths[0]):
                count = min(end - channel, depths[0])
                yield replace(move, target_channel=channel, channels=count, fill=fill)


def _runs(parts: Places) -> Iterator[tuple[int, int]]:
    """Ranges of channels of the result that are neighbours where they come from, in every pixel."""
    step = np.diff(parts, axis=2)
    joined = (step == [0, 0, 0, 1]) | ((parts[:, :, 1:] == _FILL) & (parts[:, :, :-1] == _FILL))
    breaks = np.flatnonzero(~joined.all(axis=(0, 1, 3))) + 1
    edges = [0, *breaks.tolist(), parts.shape[2]]
    yield from pairwise(edges)


def _rectangles(pixels: Places, corner: tuple[int, int], step: tuple[int, int]) -> Iterator[Move]:
    """Rectangles of equal steps that cover some pixels of the result.

    pixels: `[height, width, 4]`, (map, row, column, channel) of each. corner, step: where the first one is in the
    result, and how far apart they are.
    """
    whole = _rectangle(pixels, corner, step)
    if whole is not None:
        yield whole
        return
    height, width, _ = pixels.shape
    for period in _periods(height, width):
        phases: list[Move] = []
        for y, x in product(range(period[0]), range(period[1])):
            target = (corner[0] + y * step[0], corner[1] + x * step[1])
            steps = (step[0] * period[0], step[1] * period[1])
            found = _rectangle(pixels[y :: period[0], x :: period[1]], target, steps)
            if found is None:
                break
            phases.append(found)
        else:
            yield from phases
            return
    # Where rows or columns end that go on alike, the result is parted.
    axis, at = _longest(pixels)
    before, after = np.split(pixels, [at], axis=axis)
    yield from _rectangles(before, corner, step)
    moved = (corner[0] + at * step[0], corner[1]) if axis == 0 else (corner[0], corner[1] + at * step[1])
    yield from _rectangles(after, moved, step)


def _periods(height: int, width: int) -> list[tuple[int, int]]:
    sizes = product(range(1, min(height, MAX_PERIOD) + 1), range(1, min(width, MAX_PERIOD) + 1))
    return sorted((size for size in sizes if size != (1, 1)), key=lambda size: size[0] * size[1])


def _longest(pixels: Places) -> tuple[int, int]:
    """Where to part: the axis and position of the first break along rows, or else along columns."""
    for axis in (0, 1):
        steps = np.diff(pixels, axis=axis)
        if len(steps) if axis == 0 else steps.shape[1]:
            first = np.take(steps, [0], axis=axis)
            same = (steps == first).all(axis=(1 - axis, 2))
            if not same.all():
                return axis, int(np.flatnonzero(~same)[0]) + 1
    height, width, _ = pixels.shape
    return (0, height // 2) if height > 1 else (1, width // 2)


def _rectangle(pixels: Places, target: tuple[int, int], target_step: tuple[int, int]) -> Move | None:
    """All of these pixels as one move, None when their steps differ or go backwards."""
    height, width, _ = pixels.shape
    origin = pixels[0, 0]
    down = pixels[1, 0] - origin if height > 1 else np.zeros(4, np.int64)
    right = pixels[0, 1] - origin if width > 1 else np.zeros(4, np.int64)
    straight = not down[[0, 2, 3]].any() and not right[[0, 1, 3]].any() and down[1] >= 0 and right[2] >= 0
    if not straight:
        return None
    expected = origin + np.arange(height)[:, None, None] * down + np.arange(width)[None, :, None] * right
    if not np.array_equal(pixels, expected):
        return None
    fill = bool(origin[0] == _FILL)
    return Move(
        source=0 if fill else int(origin[0]),
        origin=(0, 0) if fill else (int(origin[1]), int(origin[2])),
        step=(0, 0) if fill else (int(down[1]), int(right[2])),
        channel=0 if fill else int(origin[3]),
        target=target,
        target_step=target_step,
        target_channel=0,
        height=height,
        width=width,
        channels=0,
        fill=0 if fill else None,
    )

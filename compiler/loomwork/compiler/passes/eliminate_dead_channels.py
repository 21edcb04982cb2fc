# SPDX-License-Identifier: Apache-2.0
"""Channels that cannot change an output are removed, and not one output bit changes.

Dense convolutions choose which channels they read; all other layers work channel by channel, so that their maps keep or
lose a channel together. An output channel of a dense convolution needs an input channel unless

- all its weights for it are zero; or
- the input channel is constant (see value_ranges.py) and is read as that constant everywhere: no window leaves the
  image, or the constant is the zero point that is read there. Then it adds `v * sum of its weights` to every sum, which
  the bias takes over. Biases here apply to raw input values, so that no zero point enters. int32 accumulators
  wrap around, and so does the new bias: sums modulo 2**32 stay as they were; or
- the output channel itself is constant: with all weights zero, and as bias a sum that occurs, it still has its value.

Needed is what the graph's inputs and outputs hold (their shape is the user's) and what something needed needs. The
least such set is kept, plus one channel of a map that would lose all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.numerics import wrap_int32
from loomwork.compiler.graph import Combination, Convolution, Graph, Layer, Rearrange, Requantize
from loomwork.compiler.value_ranges import ValueRange, reaches_padding, sum_range, value_ranges

Mask = NDArray[np.bool_]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class _DenseInput:
    """What a dense convolution makes of its input.

    needed: `[input channels, output channels]`, whether the second needs the first. values: ranges of the input's
    channels. sums: ranges of its sums of products and bias. fixed: `[output channels]`, whether the output is constant.
    """

    needed: Mask
    values: ValueRange
    sums: ValueRange
    fixed: Mask


def eliminate_dead_channels(graph: Graph) -> Graph:
    """Remove every channel that no output depends on; inputs and outputs of the graph keep all of theirs."""
    dense = _dense_inputs(graph)
    kept = _needed_channels(graph, dense)
    if all(mask.all() for mask in kept.values()):
        return graph
    return replace(
        graph,
        maps={name: replace(m, channels=int(kept[name].sum())) for name, m in graph.maps.items()},
        layers=tuple(_narrowed(layer, kept, dense) for layer in graph.layers),
    )


def _dense_inputs(graph: Graph) -> dict[str, _DenseInput]:
    """Of all dense convolutions, by the name of their output map."""
    ranges = value_ranges(graph)
    found: dict[str, _DenseInput] = {}
    for layer in graph.layers:
        if isinstance(layer, Convolution) and not layer.depthwise:
            source, fixed = ranges[layer.input], ranges[layer.output].constant
            folds = source.constant
            if reaches_padding(graph, layer):
                folds = folds & (source.low == graph.maps[layer.input].zero_point)
            found[layer.output] = _DenseInput(
                needed=layer.kernel.any(axis=(0, 1)) & ~folds[:, np.newaxis] & ~fixed,
                values=source,
                sums=sum_range(graph, layer, source),
                fixed=fixed,
            )
    return found


def _needed_channels(graph: Graph, dense: Mapping[str, _DenseInput]) -> dict[str, Mask]:
    """`[channels]` for each map: what has to be kept."""
    ends = {*graph.inputs, *graph.outputs}
    needed = {name: np.full(m.channels, name in ends) for name, m in graph.maps.items()}
    _spread(graph, dense, needed)
    # From the back, because what is kept there may need something in front.
    for layer in reversed(graph.layers):
        if not needed[layer.output].any():
            # A constant, which needs nothing itself, if there is one.
            fixed = dense[layer.output].fixed if layer.output in dense else needed[layer.output]
            needed[layer.output][np.argmax(fixed)] = True
            _spread(graph, dense, needed)
    return needed


def _spread(graph: Graph, dense: Mapping[str, _DenseInput], needed: Mapping[str, Mask]) -> None:
    """Mark all that the marked channels need, in place: sweeps until nothing is added."""
    count = -1
    while count != (count := sum(int(mask.sum()) for mask in needed.values())):
        for layer in reversed(graph.layers):
            source, output = needed[layer.input], needed[layer.output]
            if layer.output in dense:
                source |= dense[layer.output].needed[:, output].any(axis=1)
                continue
            if isinstance(layer, Rearrange):
                # Its moves name channels: it stays as it is, and so do its maps.
                for name in (*layer.reads, layer.output):
                    needed[name][:] = True
                continue
            # Channel by channel, in both directions; several output channels for each input channel if depthwise.
            groups = output.reshape(len(source), -1)
            source |= groups.any(axis=1)
            if isinstance(layer, Combination):
                source |= needed[layer.operand]
                needed[layer.operand][:] = source
            groups |= source[:, np.newaxis]


def _narrowed(layer: Layer, kept: Mapping[str, Mask], dense: Mapping[str, _DenseInput]) -> Layer:
    """The layer for the channels that are left. Others than convolutions have nothing that depends on them."""
    if not isinstance(layer, Convolution):
        return layer
    source, output = kept[layer.input], kept[layer.output]
    if layer.depthwise:
        requantize = _of_channels(layer.requantize, layer.requantize.bias, output)
        return replace(layer, kernel=layer.kernel[..., output], requantize=requantize)
    reading = dense[layer.output]
    taps = layer.kernel.astype(np.int64).sum(axis=(0, 1))
    # What goes is constant, or has no weights but zeros.
    folded = layer.requantize.bias + (reading.values.low * ~source) @ taps
    bias = wrap_int32(np.where(reading.fixed, reading.sums.low, folded))
    kernel = np.where(reading.fixed, np.int8(0), layer.kernel)[:, :, source][..., output]
    return replace(layer, kernel=kernel, requantize=_of_channels(layer.requantize, bias, output))


def _of_channels(requantize: Requantize, bias: Int64Array, kept: Mask) -> Requantize:
    """For some channels, with another bias. What all channels share stays shared."""

    def select(values: Int64Array) -> Int64Array:
        return values if len(values) == 1 else values[kept]

    bias = select(bias)
    shared = len(requantize.bias) == 1 and bool((bias == bias[0]).all())
    return replace(
        requantize,
        multiplier=select(requantize.multiplier),
        shift=select(requantize.shift),
        bias=bias[:1] if shared else bias,
    )

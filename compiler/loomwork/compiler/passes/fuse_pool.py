# SPDX-License-Identifier: Apache-2.0
"""Fusion of a convolution with the MAX_POOL_2D that alone uses its result."""

from dataclasses import replace

import numpy as np

from loomwork.arch.config import Config
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Convolution, FeatureMap, Graph, MaxPool
from loomwork.compiler.passes.uses import sole_producer
from loomwork.compiler.tiling import MAX_POOL_STEP, covered


def fuse_pool(graph: Graph, config: Config) -> Graph:
    """Let the drain pool a convolution's result, which then never goes through the scratchpad at full size.

    Only where every window lies inside the image and in one tile: windows that overlap would be computed twice.
    """
    layers = list(graph.layers)
    for pool in [layer for layer in layers if isinstance(layer, MaxPool)]:
        producer = sole_producer(graph, layers, pool.input)
        if isinstance(producer, Convolution):
            producer = FusedConvolution(
                name=producer.name,
                operator=producer.operator,
                input=producer.input,
                output=producer.output,
                convolution=producer,
            )
        if not isinstance(producer, FusedConvolution) or producer.pool is not None:
            continue
        if not _windows_fit(pool, graph.maps[pool.input], graph.maps[pool.output], config):
            continue
        fused = _clamped(producer, pool)
        if fused is None:
            continue
        index = next(i for i, layer in enumerate(layers) if layer.output == pool.input)
        layers[layers.index(pool)] = fused
        del layers[index]
    return replace(graph, layers=tuple(layers))


def _windows_fit(pool: MaxPool, source: FeatureMap, result: FeatureMap, config: Config) -> bool:
    return (
        pool.pad == (0, 0)
        and pool.window[0] * pool.window[1] <= config.accumulator_depth
        and all(
            window <= stride <= MAX_POOL_STEP and covered(outputs, window, stride) <= inputs
            for window, stride, outputs, inputs in zip(
                pool.window,
                pool.stride,
                (result.height, result.width),
                (source.height, source.width),
                strict=True,
            )
        )
    )


def _clamped(layer: FusedConvolution, pool: MaxPool) -> FusedConvolution | None:
    """The layer with `pool` behind it, clamped to the range of both: the maximum of clamped values is clamped too. A
    table takes the clamp into its entries.

    None when the ranges do not meet, which no single clamp can express.
    """
    if layer.table is not None:
        table = np.clip(layer.table, pool.minimum, pool.maximum)
        return replace(
            layer, operator=f"{layer.operator} + {pool.operator}", output=pool.output, pool=pool, table=table
        )
    last = layer.combination if layer.combination is not None else layer.convolution.requantize
    minimum, maximum = max(last.minimum, pool.minimum), min(last.maximum, pool.maximum)
    if minimum > maximum:
        return None
    fused = replace(layer, operator=f"{layer.operator} + {pool.operator}", output=pool.output, pool=pool)
    if layer.combination is not None:
        return replace(fused, combination=replace(layer.combination, minimum=minimum, maximum=maximum))
    requantize = replace(layer.convolution.requantize, minimum=minimum, maximum=maximum)
    return replace(fused, convolution=replace(layer.convolution, requantize=requantize))

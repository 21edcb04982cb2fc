# SPDX-License-Identifier: Apache-2.0
"""From layers to work: each kind of layer knows how to be cut and which commands it becomes."""

from loomwork.arch.config import Config
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import (
    Add,
    AveragePool,
    Combination,
    Convolution,
    Graph,
    Layer,
    MaxPool,
    Mean,
    Multiply,
    Rearrange,
    Rescale,
    Table,
)
from loomwork.compiler.lower_convolution import ConvolutionWork
from loomwork.compiler.lower_elementwise import ElementwiseWork
from loomwork.compiler.lower_pooling import MeanWork, PoolWork
from loomwork.compiler.lower_rearrange import RearrangeWork
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.weights import ConstantPool
from loomwork.compiler.work import Work


def lower(graph: Graph, config: Config, constants: ConstantPool) -> list[Work]:
    """The work of each layer; weights go to `constants`. Raises UnsupportedLayerError for what cannot be expressed."""
    return [lower_layer(layer, index, graph, config, constants) for index, layer in enumerate(graph.layers)]


def lower_layer(layer: Layer, index: int, graph: Graph, config: Config, constants: ConstantPool | None) -> Work:
    """The work of one layer, number `index` of the graph. constants: None for work of which only the cost is wanted."""
    if isinstance(layer, Add) and not config.residual_add:
        raise UnsupportedLayerError(layer, f"configuration {config.name} leaves it out (residual_add)")
    if isinstance(layer, Multiply) and not config.elementwise_multiply:
        raise UnsupportedLayerError(layer, f"configuration {config.name} leaves it out (elementwise_multiply)")
    if isinstance(layer, Table) and not config.activation_table:
        raise UnsupportedLayerError(layer, f"configuration {config.name} leaves it out (activation_table)")
    match layer:
        case Convolution() | FusedConvolution():
            return ConvolutionWork(layer, index, graph, config, constants)
        case MaxPool() | AveragePool():
            return PoolWork(layer, index, graph, config)
        case Mean():
            return MeanWork(layer, index, graph, config)
        case Rearrange():
            return RearrangeWork(layer, index, graph, config)
        case Combination() | Rescale() | Table():
            return ElementwiseWork(layer, index, graph, config)
        case _:
            raise UnsupportedLayerError(layer, "the compiler cannot lower it")

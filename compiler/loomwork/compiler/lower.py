# SPDX-License-Identifier: Apache-2.0
"""From layers to commands, layer by layer."""

from loomwork.compiler.allocate import Allocation
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Add, AveragePool, Convolution, Graph, Layer, MaxPool, Mean, Rescale
from loomwork.compiler.lower_convolution import lower_convolution
from loomwork.compiler.lower_elementwise import lower_add, lower_rescale
from loomwork.compiler.lower_pooling import lower_mean, lower_pool
from loomwork.compiler.task import Task
from loomwork.compiler.unsupported import UnsupportedLayerError
from loomwork.compiler.weights import ConstantPool


def lower(graph: Graph, allocation: Allocation, constants: ConstantPool) -> list[list[Task]]:
    """The tasks of each layer, in program order; their weights go to `constants`.

    Settings are repeated before every DRAIN. Raises UnsupportedLayerError for what cannot be expressed.
    """
    return [_lower_layer(layer, index, allocation, constants) for index, layer in enumerate(graph.layers)]


def _lower_layer(layer: Layer, index: int, allocation: Allocation, constants: ConstantPool) -> list[Task]:
    if isinstance(layer, Add) and not allocation.config.residual_add:
        raise UnsupportedLayerError(layer, f"configuration {allocation.config.name} leaves it out (residual_add)")
    match layer:
        case Convolution() | FusedConvolution():
            return lower_convolution(layer, index, allocation, constants)
        case MaxPool() | AveragePool():
            return lower_pool(layer, index, allocation)
        case Mean():
            return lower_mean(layer, index, allocation)
        case Add():
            return lower_add(layer, index, allocation)
        case Rescale():
            return lower_rescale(layer, index, allocation)
        case _:
            raise UnsupportedLayerError(layer, "the compiler cannot lower it")

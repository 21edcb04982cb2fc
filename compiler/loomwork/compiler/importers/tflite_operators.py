# SPDX-License-Identifier: Apache-2.0
"""Which TFLite operators run where.

`python -m loomwork.compiler.importers.tflite_operators` prints the reference page docs/reference/operators.md.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from loomwork.compiler.constraints import Supported, paragraph, render_page
from loomwork.compiler.graph import FeatureMap, Layer
from loomwork.compiler.importers import tflite_constraints as needs
from loomwork.compiler.importers import tflite_layers as layers
from loomwork.compiler.importers.tflite_model import Operator
from loomwork.compiler.importers.tflite_shapes import FREE


@dataclass(frozen=True)
class Rule(Supported[Operator]):
    """How an operator becomes a layer.

    layer: makes it, from the operator, the feature maps it reads and the name of the one it writes. any_shape: whether
    the layer takes its input in any division into rows, so that a reshape in front of it costs nothing.
    """

    layer: Callable[[Operator, tuple[FeatureMap, ...], str], Layer]
    any_shape: bool = False


_ALWAYS = (needs.int8_activations, needs.computed_inputs, needs.one_image, needs.image_fits)
_WEIGHTS = (needs.constant_weights, needs.symmetric_weights)
_EXACT = (needs.rescaling_fits, needs.bias_fits)
_WINDOW = (needs.convolution_stride, needs.convolution_kernel)
_POOL = (*_ALWAYS, needs.same_quantization, needs.pool_window)
_PAD = (*_ALWAYS, needs.same_quantization, needs.image_padding, needs.zero_padding)
_TABLE = (*_ALWAYS, needs.tabulated)
_RESCALE = (*_ALWAYS, needs.same_rescaling)

RULES: tuple[Rule, ...] = (
    Rule(
        "CONV_2D",
        "a convolution, with its fused activation; grouped convolutions are filled up with zeros",
        (*_ALWAYS, *_WEIGHTS, *_EXACT, *_WINDOW, needs.groups_fit),
        layers.convolution,
    ),
    Rule(
        "DEPTHWISE_CONV_2D",
        "a depthwise convolution with any depth multiplier, or a dense one when there is one input channel",
        (*_ALWAYS, *_WEIGHTS, *_EXACT, *_WINDOW),
        layers.convolution,
    ),
    Rule(
        "FULLY_CONNECTED",
        "a convolution whose kernel covers the image; several rows become a 1x1 convolution",
        (*_ALWAYS, *_WEIGHTS, *_EXACT, needs.fully_connected_rows),
        layers.fully_connected,
        any_shape=True,
    ),
    Rule(
        "ADD",
        "an addition, with its fused activation",
        (*_ALWAYS, needs.same_shapes, needs.add_rescaling),
        layers.add,
        any_shape=True,
    ),
    Rule("MAX_POOL_2D", "maximum pooling, with its fused activation", _POOL, layers.pool),
    Rule("AVERAGE_POOL_2D", "average pooling, with its fused activation", _POOL, layers.pool),
    Rule("MEAN", "a mean over the image", (*_ALWAYS, needs.global_mean, needs.mean_rescaling), layers.mean),
    Rule("PAD", "padding of the convolution behind it, or a convolution of its own", _PAD, layers.pad),
    Rule("PADV2", "the same as PAD", _PAD, layers.pad),
    Rule("QUANTIZE", "a rescaling, when it leads from int8 to int8", _RESCALE, layers.rescale, any_shape=True),
    Rule("RELU", "a rescaling, part of the layer in front of it where that is exact", _RESCALE, layers.rescale, True),
    Rule("RELU6", "the same as RELU", _ALWAYS, layers.relu6, True),
    Rule("RELU_N1_TO_1", "the same as RELU", _RESCALE, layers.rescale, True),
    Rule("LOGISTIC", "a table, part of a convolution in front of it", _TABLE, layers.table, True),
    Rule("TANH", "the same as LOGISTIC", _TABLE, layers.table, True),
    Rule("LEAKY_RELU", "the same as LOGISTIC", _TABLE, layers.table, True),
    Rule("HARD_SWISH", "the same as LOGISTIC", _TABLE, layers.table, True),
    Rule("ELU", "the same as LOGISTIC", _TABLE, layers.table, True),
)

BY_CODE = {rule.code: rule for rule in RULES}

# fmt: off
HOST = frozenset((
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_MATMUL", "BATCH_TO_SPACE_ND",
    "BROADCAST_ARGS", "BROADCAST_TO", "CAST", "CEIL", "CONCATENATION", "CONV_2D", "COS", "CUMSUM",
    "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "DYNAMIC_UPDATE_SLICE", "ELU", "EMBEDDING_LOOKUP",
    "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER",
    "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "L2_NORMALIZATION", "L2_POOL_2D", "LEAKY_RELU", "LESS",
    "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX", "MAXIMUM",
    "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "PRELU",
    "QUANTIZE", "REDUCE_ALL", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE", "SOFTMAX",
    "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SQUEEZE",
    "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "UNPACK", "ZEROS_LIKE",
))
# fmt: on
"""Operators of tflite-micro's Python interpreter, without those that keep state or call other subgraphs."""


def operators_page() -> str:
    """The reference page docs/reference/operators.md."""
    return render_page(
        "TFLite operators",
        [(rule.code, rule.layers, [condition.phrase for condition in rule.constraints]) for rule in RULES],
        free=paragraph(
            f"{', '.join(FREE)}: the bytes stay as they are. Where the rows of an image change, the tensor passes "
            "through external memory, between two accelerator steps."
        ),
        host=[
            "Executed by tflite-micro, in the same run:",
            "",
            f"{', '.join(sorted(HOST - set(FREE) - set(BY_CODE)))}.",
            "",
            *paragraph(
                "Every operator above that does not meet its conditions joins them. A model that holds any other "
                "operator is refused, and so is one of which no operator runs on the accelerator."
            ),
        ],
    )


if __name__ == "__main__":
    sys.stdout.write(operators_page())

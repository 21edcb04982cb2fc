# SPDX-License-Identifier: Apache-2.0
"""Which ONNX operators the accelerator executes, how each sees its tensors and what becomes of it."""

from dataclasses import dataclass

from loomwork.compiler.importers import onnx_layers as layers
from loomwork.compiler.importers import onnx_weighted as weighted
from loomwork.compiler.importers.onnx_forms import IMAGE, MEAN, MOVES, ROWS, VALUES, Form
from loomwork.compiler.importers.onnx_moves import rearrange
from loomwork.compiler.importers.onnx_sight import Build
from loomwork.compiler.importers.onnx_tables import table, table_or
from loomwork.compiler.importers.onnx_transposed import transposed_convolution


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a quantized operator becomes layers.

    op: ONNX's name. layers: what becomes of it, for the reference page. needs: conditions, for the page; what checks
    them is `build`, which says what is the case instead. form: how it sees its tensors. activations: how many of its
    first inputs may be computed.
    """

    op: str
    layers: str
    needs: tuple[str, ...]
    form: Form
    build: Build
    activations: int = 1


_WINDOW = "one or two spatial dimensions"
_WEIGHTS = "constant weights, quantized to 8 bits with one scale or one per output channel"
_COMPUTING = (
    Rule(
        op="Conv",
        layers="a convolution (grouped ones a dense one with zeros, a group per channel a depthwise one)",
        needs=(_WINDOW, _WEIGHTS, "a constant bias"),
        form=IMAGE,
        build=weighted.convolution,
    ),
    Rule(
        op="Gemm",
        layers="a convolution whose kernel covers the image, or of 1x1 for several rows",
        needs=(_WEIGHTS, "a constant bias", "alpha and beta of 1, no transA"),
        form=ROWS,
        build=weighted.dense,
    ),
    Rule(
        op="MatMul",
        layers="a convolution whose kernel covers the image, or of 1x1 for several rows",
        needs=(_WEIGHTS, "a matrix on the right of two dimensions"),
        form=ROWS,
        build=weighted.dense,
    ),
    Rule(
        op="Add",
        layers="a sum in the drain, fused with the convolution before it where that has no other reader; a table",
        needs=("two computed tensors of the same shape, or one and a single constant",),
        form=VALUES,
        build=table_or(layers.add),
        activations=2,
    ),
    Rule(
        op="Sub",
        layers="a depthwise convolution with -1 and a sum; a table",
        needs=("two computed tensors of the same shape, or one and a single constant",),
        form=VALUES,
        build=table_or(layers.add),
        activations=2,
    ),
    Rule(
        op="MaxPool",
        layers="maximum pooling",
        needs=(_WINDOW, "no dilation", "no second result (Indices)"),
        form=IMAGE,
        build=layers.max_pool,
    ),
    Rule(op="GlobalMaxPool", layers="maximum pooling", needs=(_WINDOW,), form=IMAGE, build=layers.max_pool),
    Rule(
        op="AveragePool",
        layers="a depthwise convolution with ones",
        needs=(_WINDOW, "no dilation", "windows of equal size: no padding, or count_include_pad"),
        form=IMAGE,
        build=weighted.average_pool,
    ),
    Rule(op="GlobalAveragePool", layers="a mean over the image", needs=(_WINDOW,), form=MEAN, build=layers.mean),
    Rule(
        op="ReduceMean",
        layers="a mean over the image",
        needs=("dimensions that are the pixels of an image", "constant axes"),
        form=MEAN,
        build=layers.mean,
    ),
    Rule(
        op="Relu",
        layers="a clamp of what computes its input, or a rescaling",
        needs=(),
        form=VALUES,
        build=layers.rescale,
    ),
    Rule(
        op="Clip",
        layers="a clamp of what computes its input, or a rescaling",
        needs=("constant bounds",),
        form=VALUES,
        build=layers.rescale,
    ),
    Rule(
        op="QuantizeLinear",
        layers="a rescaling, where its input is quantized otherwise",
        needs=("one constant scale",),
        form=VALUES,
        build=layers.rescale,
    ),
)
_MULTIPLYING = (
    Rule(
        op="ConvTranspose",
        layers="a convolution that computes blocks of pixels, and a rearrangement",
        needs=(_WINDOW, _WEIGHTS, "a constant bias", "no dilation"),
        form=IMAGE,
        build=transposed_convolution,
    ),
    *(
        Rule(
            op=op,
            layers="a table, or a depthwise convolution",
            needs=("a constant factor, one or one for each channel",),
            form=IMAGE,
            build=table_or(weighted.scale_channels),
            activations=2,
        )
        for op in ("Mul", "Div")
    ),
)
FUNCTIONS = (
    *("Abs", "Ceil", "Celu", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log"),
    *("Max", "Min", "Mish", "Neg", "PRelu", "Pow", "Reciprocal", "Round", "Selu", "Sigmoid", "Sign", "Softplus"),
    *("Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
)
"""Functions of one number, some with constants."""
_LOOKED_UP = tuple(
    Rule(
        op=op,
        layers="a table of 256 entries",
        needs=("one computed tensor, other inputs single constants",),
        form=VALUES,
        build=table,
        activations=2,
    )
    for op in FUNCTIONS
)
_MOVED = {
    "Concat": "one part for each input",
    "Slice": "rectangles",
    "Pad": "a copy and a border, all modes",
    "Resize": "a copy for each repetition; nearest only",
    "DepthToSpace": "a copy for each place in a block",
    "SpaceToDepth": "a copy for each place in a block",
    "Transpose": "rectangles, where it is not just another view",
    "Gather": "rectangles; of constant indices",
    "Tile": "a copy for each repetition",
    "Expand": "a copy for each repetition",
}
_MOVING = tuple(
    Rule(
        op=op,
        layers=f"a rearrangement: {what}",
        needs=("indices, sizes and scales that are constant", "numbers that are copied, not mixed"),
        form=MOVES,
        build=rearrange,
        activations=1 << 30 if op == "Concat" else 1,
    )
    for op, what in _MOVED.items()
)
RULES = {rule.op: rule for rule in (*_COMPUTING, *_MULTIPLYING, *_LOOKED_UP, *_MOVING)}

# SPDX-License-Identifier: Apache-2.0
"""Which ONNX operators the accelerator executes, how each sees its tensors and what becomes of it.

`python -m loomwork.compiler.importers.onnx_operators` prints the reference page docs/reference/onnx-operators.md.
"""

import sys
from dataclasses import dataclass
from itertools import groupby

from loomwork.compiler.constraints import paragraph, render_page
from loomwork.compiler.importers import onnx_layers as layers
from loomwork.compiler.importers import onnx_weighted as weighted
from loomwork.compiler.importers.onnx_codes import LAYOUTS
from loomwork.compiler.importers.onnx_forms import IMAGE, MEAN, MOVES, ROWS, VALUES, Form
from loomwork.compiler.importers.onnx_moves import copy, rearrange
from loomwork.compiler.importers.onnx_qoperator import QOPERATORS
from loomwork.compiler.importers.onnx_sight import Build
from loomwork.compiler.importers.onnx_slopes import slopes
from loomwork.compiler.importers.onnx_tables import table, table_or
from loomwork.compiler.importers.onnx_transposed import transposed_convolution
from loomwork.compiler.importers.onnx_units import Unit
from loomwork.compiler.limits import MAX_HEIGHT, MAX_ROW_BYTES


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a quantized operator becomes layers.

    op: ONNX's name. layers: what becomes of it, for the reference page. needs: conditions, for the page; what checks
    them is `build`, which says what is the case instead. form: how it sees its tensors. activations: how many of its
    first inputs may be computed. function: whether `build` looks it up where all of those are functions of one tensor.
    """

    op: str
    layers: str
    needs: tuple[str, ...]
    form: Form
    build: Build
    activations: int = 1
    function: bool = False


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
        needs=(_WEIGHTS, "a constant bias", "a positive alpha, no transA"),
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
        needs=("two computed tensors, or one and a single constant",),
        form=VALUES,
        build=table_or(layers.add),
        activations=2,
        function=True,
    ),
    Rule(
        op="Sub",
        layers="a depthwise convolution with -1 and a sum; a table",
        needs=("two computed tensors, or one and a single constant",),
        form=VALUES,
        build=table_or(layers.add),
        activations=2,
        function=True,
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
        layers="a depthwise convolution with ones, or sums in the drain where windows count fewer pixels at the border",
        needs=(_WINDOW, "no dilation", "with count_include_pad, no window that leaves the padding (ceil_mode)"),
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
            function=True,
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
        function=True,
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
PRODUCT = Rule(
    op="Mul",
    layers="a product in the drain, fused with the convolution before it where that has no other reader",
    needs=("two computed tensors",),
    form=VALUES,
    build=layers.multiply,
    activations=2,
)
"""Mul of two tensors."""
SLOPES = Rule(
    op="PRelu",
    layers="a rescaling, a depthwise convolution and a sum",
    needs=("a constant slope for each channel",),
    form=IMAGE,
    build=slopes,
)
"""PRelu with several slopes."""
VARIANTS = {"Mul of two tensors": PRODUCT, "PRelu with a slope for each channel": SLOPES}
"""What operators become that have other inputs than RULES has them with, by what to call them."""


def variant(unit: Unit, rule: Rule) -> Rule:
    """The rule of an operator that becomes something else when it has other inputs, or else `rule`."""
    if unit.node.op == PRODUCT.op and len(unit.read) == 2 and all(source.table is None for source in unit.read):
        return PRODUCT
    if unit.node.op == SLOPES.op:
        constant = unit.constant(1) if unit.sources[1] is None else None
        return SLOPES if constant is not None and constant.size > 1 else rule
    return rule


COPY = Rule(
    op="Transpose",
    layers="a rearrangement, where what follows cannot take the tensor as it lies",
    needs=(),
    form=MOVES,
    build=copy,
)
"""What puts the numbers of a view in order. No operator becomes one by itself: layout operators compute nothing."""


def operators_page() -> str:
    """The reference page docs/reference/onnx-operators.md."""
    alike = groupby(RULES.values(), key=lambda rule: (rule.layers, (rule.form.needs, *rule.needs)))
    return render_page(
        "ONNX operators",
        [
            *((", ".join(rule.op for rule in rules), layers, needs) for (layers, needs), rules in alike),
            *((title, rule.layers, (rule.form.needs, *rule.needs)) for title, rule in VARIANTS.items()),
        ],
        always=[
            *paragraph(
                "Every operator needs inputs that are quantized to 8 bits (int8 or uint8) with one constant scale, and "
                "a result that is quantized so, too. In the QDQ form the result may first go through Relu or Clip and "
                "what is free; nothing else may read it in between. Images have at most "
                f"{MAX_HEIGHT} rows of at most {MAX_ROW_BYTES} bytes (width x channels)."
            ),
            "",
            *paragraph(
                f"{', '.join(QOPERATORS)} (the QOperator form, of ONNX or ONNX Runtime) are read as the operators that "
                "they abbreviate, when their scales are constant. Split is read as a Slice for each of its results."
            ),
        ],
        free=paragraph(
            f"{', '.join(LAYOUTS)}: another view of the same bytes, as long as what reads them can take them so. "
            "DequantizeLinear, and QuantizeLinear with the scale that the numbers have already, say what the bytes "
            "stand for. What is computed from constants is folded."
        ),
        host=paragraph(
            "ONNX Runtime executes, in the same run, every other operator that it knows, and every one above that does "
            "not meet its conditions. A model of which no operator runs on the accelerator is refused; only the ONNX "
            "backend, `loomwork.cli.onnx_backend`, runs such a one on the host."
        ),
    )


if __name__ == "__main__":
    sys.stdout.write(operators_page())

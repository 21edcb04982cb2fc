# SPDX-License-Identifier: Apache-2.0
"""Which operators are quantized, and which of them keep the scale of what they read."""

import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights, quantized per output channel."""

MOVES = (
    *("MaxPool", "AveragePool", "Split", "Slice", "Pad", "Resize", "DepthToSpace", "SpaceToDepth"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"),
)
"""Operators whose results lie among the values they read, so that one scale serves both sides."""

QUANTIZED = (
    *WEIGHTED,
    *("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSwish", "HardSigmoid", "Tanh", "Gelu"),
    *("Add", "Sub", "Mul", "GlobalAveragePool", "ReduceMean", "Concat", "Softmax"),
    *MOVES,
)
"""Operators with int8 values on both sides. Every other one stays float, behind DequantizeLinear."""


def keeps_scale(node: onnx.NodeProto) -> bool:
    """Whether a node's outputs have the scale of its first input (of all its inputs for Concat).

    A Pad may bring a value that lies outside; cubic interpolation goes beyond the values that it reads.
    """
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Pad":
        constant = "mode" not in attributes or attributes["mode"].s == b"constant"
        return not (constant and len(node.input) > 2 and node.input[2])
    if node.op_type == "Resize":
        return "mode" not in attributes or attributes["mode"].s != b"cubic"
    return node.op_type in MOVES or node.op_type == "Concat"

# SPDX-License-Identifier: Apache-2.0
"""x * HardSigmoid(x) as one HardSwish: one rounding instead of two, and one operator for the accelerator."""

import math
from collections import Counter

import onnx

_ALPHA, _BETA = 1 / 6, 0.5
"""Of the HardSigmoid in HardSwish (ONNX operator set 14)."""


def fuse_hard_swish(model: onnx.ModelProto) -> None:
    """Replace each such pair in a model of operator set 14 or later; ONNX Runtime's optimizer takes HardSwish apart."""
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(value.name for value in model.graph.output)
    sigmoids = {node.output[0]: node for node in model.graph.node if _is_hard_sigmoid(node)}
    for node in model.graph.node:
        if node.op_type != "Mul" or node.domain:
            continue
        for gate, value in (tuple(node.input), tuple(reversed(node.input))):
            sigmoid = sigmoids.get(gate)
            if sigmoid is not None and sigmoid.input[0] == value and uses[gate] == 1:
                node.op_type = "HardSwish"
                node.input[:] = [value]
                model.graph.node.remove(sigmoid)
                break


def _is_hard_sigmoid(node: onnx.NodeProto) -> bool:
    if node.op_type != "HardSigmoid" or node.domain:
        return False
    values = {attribute.name: attribute.f for attribute in node.attribute}
    alpha, beta = values.get("alpha", 0.2), values.get("beta", 0.5)
    return math.isclose(alpha, _ALPHA, rel_tol=1e-4) and math.isclose(beta, _BETA, rel_tol=1e-4)

# SPDX-License-Identifier: Apache-2.0
"""What an importer of QDQ models expects, said without the code that writes them."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


@dataclass(frozen=True)
class Scale:
    """scale and zero_point: scalars or `[channels]`, along axis. dtype: of the integers."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None


class Reader:
    """Finds scales in a QDQ model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        inferred = onnx.shape_inference.infer_shapes(model)
        self.types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        }
        self.types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if name in node.input]

    def operators(self) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if not node.op_type.endswith("quantizeLinear"[1:])]

    def only(self, kind: str) -> onnx.NodeProto:
        (found,) = [node for node in self.model.graph.node if node.op_type == kind]
        return found

    def scale(self, node: onnx.NodeProto) -> Scale:
        axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
        return Scale(self.constants[node.input[1]], self.constants[node.input[2]], axes[0] if axes else None)

    def input_scale(self, node: onnx.NodeProto, index: int = 0) -> Scale:
        return self.scale(self.makers[node.input[index]])

    def output_scale(self, node: onnx.NodeProto, index: int = 0) -> Scale:
        (quantizer,) = self.consumers(node.output[index])
        return self.scale(quantizer)

    def violations(self) -> list[str]:
        """Where an operator is not of the form DequantizeLinear -> operator -> QuantizeLinear."""
        wrong: list[str] = []
        for node in self.operators():
            for index, name in enumerate(node.input):
                # Float constants that are parameters rather than values: the bounds of Clip, the scales of Resize.
                parameter = (node.op_type == "Clip" and index > 0) or (node.op_type == "Resize" and index > 0)
                if not name or parameter or self.types[name] != TensorProto.FLOAT:
                    continue
                if name not in self.makers or self.makers[name].op_type != "DequantizeLinear":
                    wrong.append(f"input {name} of {node.op_type} is not dequantized")
            for name in node.output:
                readers = [reader.op_type for reader in self.consumers(name)]
                if readers != ["QuantizeLinear"]:
                    wrong.append(f"output {name} of {node.op_type} is read by {readers}")
        return wrong

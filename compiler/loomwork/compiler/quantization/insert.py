# SPDX-License-Identifier: Apache-2.0
"""QuantizeLinear and DequantizeLinear around the operators of a float model, by ONNX Runtime's quantizer."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from loomwork.compiler.quantization.operators import QUANTIZED, keeps_scale
from loomwork.compiler.quantization.session import quiet
from loomwork.compiler.quantization.sharing import Range, share_ranges


def insert(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """The model with int8 values around every operator of `QUANTIZED`.

    Activations are int8 with a zero point, weights int8 per output channel and without one, biases int32. A Relu or
    Clip behind another operator becomes the saturation of that operator's QuantizeLinear where the two are the same.
    ranges: of every float tensor that such an operator reads or makes.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quiet():
        return _Quantizer(copy, ranges).quantize_model()


class _Quantizer(QDQQuantizer):
    """ONNX Runtime's quantizer, with every input of every operator quantized and scales shared across Concat."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
        self._float_model = onnx.ModelProto()
        self._float_model.CopyFrom(model)
        self._shared = share_ranges(model, ranges)
        initializers = {tensor.name for tensor in model.graph.initializer}
        one_scale = {
            name: [{"quant_type": QuantType.QInt8, "symmetric": True}]
            for node in model.graph.node
            for name in _without_channels(node)
            if name in initializers
        }
        super().__init__(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=_tensors_data(ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(QUANTIZED),
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "ForceQuantizeNoInputCheck": True,
                # The weights of a MatMul may be of any rank, their output channels are in the last dimension.
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": -1},
                "TensorQuantOverrides": one_scale,
            },
        )

    def adjust_tensor_ranges(self) -> None:
        """What precedes a Relu or Clip gets the range behind it, Softmax 0 to 1; then shared scales are made equal."""
        super().adjust_tensor_ranges()
        ranges = {name: (float(data.lowest), float(data.highest)) for name, data in self.tensors_range.items()}
        self.tensors_range = _tensors_data(share_ranges(self._float_model, ranges))

    def quantize_model(self) -> onnx.ModelProto:
        """Mark the inputs of activations first, for the quantizer leaves a Relu float whose input is not marked yet.

        The nodes it adds are at the end of the graph; the file format wants each one behind what it reads.
        """
        for node in self._float_model.graph.node:
            if node.op_type in ("Relu", "Clip"):
                self.quantize_activation_tensor(node.input[0])
        super().quantize_model()
        self.model.topological_sort()
        return self.model.model

    def try_replacing_upstream_output(self, upstream_output_name: str, output_name: str) -> bool:
        """Whether a Relu or Clip was replaced by the saturation of the QuantizeLinear behind it.

        Not behind an operator that keeps its input's scale; not when Clip's bounds leave out 0, for every quantized
        range holds 0, so that values between 0 and the bound would pass; and not when the range is shared with a tensor
        that reaches beyond the bounds, such as another part of a Concat.
        """
        producers = {name: node for node in self._float_model.graph.node for name in node.output}
        upstream = producers.get(upstream_output_name)
        if upstream is None or keeps_scale(upstream) or upstream.op_type not in QUANTIZED:
            return False
        bounds = self._bounds(producers[output_name])
        if bounds is None or not bounds[0] <= 0 <= bounds[1]:
            return False
        low, high = self._shared.get(output_name, bounds)
        if low < bounds[0] or high > bounds[1]:
            return False
        return super().try_replacing_upstream_output(upstream_output_name, output_name)

    def _bounds(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """The bounds of a Relu or Clip, None when they are computed."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        values = {tensor.name: tensor for tensor in self._float_model.graph.initializer}
        bounds = [-np.inf, np.inf]
        for index, name in enumerate(node.input[1:3]):
            if name:
                if name not in values:
                    return None
                bounds[index] = float(numpy_helper.to_array(values[name]))
        return bounds[0], bounds[1]


def _without_channels(node: onnx.NodeProto) -> Sequence[str]:
    """Weights that have no axis of output channels: on the left of a MatMul, and of several groups transposed."""
    if node.op_type == "MatMul":
        return node.input[:1]
    grouped = any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    return node.input[1:2] if node.op_type == "ConvTranspose" and grouped else ()


def _tensors_data(ranges: Mapping[str, Range]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
            for name, (low, high) in ranges.items()
        },
    )

# SPDX-License-Identifier: Apache-2.0
"""What tflite-micro refuses, aborts on or silently gets wrong: refused here, with a sentence."""

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import ActivationFunctionType

from loomwork.arch.numerics import INT8_MIN, quantize_multiplier
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.tflite_model import Operator, Tensor
from loomwork.compiler.importers.tflite_operators import HOST
from loomwork.compiler.importers.tflite_quantization import add_output_factor, scale, zero_point

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_INT8_ONLY = (*_WEIGHTED, "ADD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RELU", "RELU6", "SOFTMAX", "LOGISTIC")
_EXECUTED = (
    ActivationFunctionType.NONE,
    ActivationFunctionType.RELU,
    ActivationFunctionType.RELU_N1_TO_1,
    ActivationFunctionType.RELU6,
)
_SAME_QUANTIZATION = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION")
SMALLEST_SOFTMAX_SCALE = 2.0**-26
SOFTMAX_TOLERANCE = 1e-3


def check_host(operator: Operator) -> None:
    """Raise CompileError for an operator that tflite-micro does not execute as the file means it."""
    if operator.code not in HOST:
        raise CompileError(f"{operator} is executed neither by the accelerator nor by tflite-micro; replace it")
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
    if operator.code in _INT8_ONLY and any(tensor.dtype == "uint8" for tensor in tensors):
        raise CompileError(
            f"{operator} is quantized to uint8, TensorFlow's legacy format, which neither the accelerator nor "
            f"tflite-micro executes; convert the model again, to int8"
        )
    activation = getattr(operator.table.builtinOptions, "fusedActivationFunction", ActivationFunctionType.NONE)
    if activation not in _EXECUTED:
        raise CompileError(f"{operator} has the fused activation {activation} of the schema, which no kernel executes")
    if tensors[0].dtype != "int8" or operator.outputs[0].dtype != "int8":
        return
    if operator.code in ("CONV_2D", "DEPTHWISE_CONV_2D") and tensors[1].zero_point.any():
        raise CompileError(f"{operator} has int8 weights with a zero point other than 0, which TFLite rules out")
    if operator.code in _SAME_QUANTIZATION:
        for tensor in tensors[: 1 if "POOL" in operator.code else None]:
            if not _same_quantization(tensor, operator.outputs[0]):
                raise CompileError(
                    f"{operator} has another scale or zero point at its output than at its input {tensor.name!r}, "
                    f"which tflite-micro refuses"
                )
    if operator.code in ("ADD", "SUB") and all(len(tensor.scale) for tensor in tensors[:2]):
        factor = add_output_factor(tensors[0], tensors[1], operator.outputs[0])
        if factor >= 1 or quantize_multiplier(factor)[1] > 0:
            raise CompileError(f"{operator}: its output scale is less than the larger input scale / 2**19")
    softmax = operator.table.builtinOptions
    if isinstance(softmax, schema.SoftmaxOptionsT):
        if softmax.beta * scale(tensors[0]) <= SMALLEST_SOFTMAX_SCALE:
            raise CompileError(f"{operator}: beta {softmax.beta} x input scale {scale(tensors[0])} is too small")
        if abs(scale(operator.outputs[0]) * 256 - 1) > SOFTMAX_TOLERANCE or zero_point(operator.outputs[0]) != INT8_MIN:
            raise CompileError(f"{operator}: its output must have scale 1/256 and zero point {INT8_MIN}")


def _same_quantization(a: Tensor, b: Tensor) -> bool:
    return a.scale.tolist() == b.scale.tolist() and a.zero_point.tolist() == b.zero_point.tolist()

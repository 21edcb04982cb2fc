# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization of float ONNX models to int8.

model = read_model(Path("net.onnx"))
quantized = quantize(model, {"input": images})
onnx.save_model(quantized.model, "net_int8.onnx")
"""

from loomwork.compiler.quantization.calibrate import METHODS, Method
from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.layers import Layer
from loomwork.compiler.quantization.quantize import Quantized, Trial, quantize
from loomwork.compiler.quantization.read import read_model

__all__ = ["METHODS", "Layer", "Method", "QuantizeError", "Quantized", "Trial", "quantize", "read_model"]

# SPDX-License-Identifier: Apache-2.0
"""Small quantized ONNX models, with images that reach every number of an int8 input.

    m = QdqBuilder()
    m.output(m.quantize(m.node("Conv", m.input((1, 8, 5, 6)), m.weights((4, 8, 3, 3)))))
    case = m.case()

Scales are irregular on purpose: with such as 0.05 and 0.07 many results lie exactly between two steps, where ONNX
Runtime's float32 decides by its own rounding noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

Array = NDArray[Any]
Image = dict[str, Array]

SCALE, ZERO_POINT = 0.05173, 3
"""Of inputs, where nothing else is said; zero points are given as of int8."""
IR_VERSION = 8
_TYPES = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, images for it (each a dictionary of its inputs), and of each output the size of a quantization step."""

    model: onnx.ModelProto
    images: tuple[Image, ...]
    steps: dict[str, float]


class QdqBuilder:
    """Builds one model, node by node. A tensor is the name of its real value, behind DequantizeLinear.

    dtype: of quantized activations. stored: inputs are quantized already, so that no QuantizeLinear stands in front.
    """

    def __init__(self, *, dtype: str = "int8", stored: bool = False, opset: int = 17, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self._stored = stored
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: dict[str, tuple[tuple[int, ...], float, int]] = {}
        self._outputs: list[onnx.ValueInfoProto] = []
        self._steps: dict[str, float] = {}
        self._scales: dict[str, tuple[str, float]] = {}
        self._stated: list[onnx.ValueInfoProto] = []

    def input(self, shape: Sequence[int], *, scale: float = SCALE, zero_point: int = ZERO_POINT) -> str:
        """A quantized input of the network."""
        name = f"x{len(self._inputs)}"
        self._inputs[name] = (tuple(shape), scale, zero_point)
        if self._stored:
            return self.dequantize(name, scale, zero_point)
        return self.quantize(name, scale=scale, zero_point=zero_point)

    def constant(self, value: Any) -> str:
        """A constant; floating point numbers become float32, integers int64, arrays stay what they are."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        if not isinstance(value, np.ndarray | np.generic):
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(
        self,
        shape: Sequence[int],
        *,
        scale: float | Array = 0.00413,
        axis: int = 0,
        unsigned: bool = False,
        largest: int | None = None,
    ) -> str:
        """Random weights. scale: one, or one for each index of `axis`. largest: of their numbers.

        For uint8 activations they have 7 bits: ONNX Runtime's kernel saturates sums of two products on processors
        without VNNI.
        """
        largest = largest or (127 if self.dtype == "int8" else 63)
        stored = self.rng.integers(-largest, largest + 1, tuple(shape))
        zero = 128 if unsigned else 0
        kind = np.uint8 if unsigned else np.int8
        return self._stored_constant((stored + zero).astype(kind), scale, zero, axis)

    def bias(self, shape: Sequence[int], scale: float | Array, *, largest: int = 3000) -> str:
        """A random bias. scale: of the input times that of the weights."""
        stored = self.rng.integers(-largest, largest + 1, tuple(shape)).astype(np.int32)
        return self._stored_constant(stored, scale, 0, len(shape) - 1)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """An operator with one result."""
        return self.nodes(op, *inputs, **attributes)[0]

    def nodes(
        self, op: str, *inputs: str, results: int = 1, names: Sequence[str] | None = None, **attributes: Any
    ) -> list[str]:
        """An operator with several results, or results with given names."""
        number = len(self._nodes)
        if names is None:
            names = [f"{op.lower()}{number}" + (f".{place}" if results > 1 else "") for place in range(results)]
        self._nodes.append(helper.make_node(op, list(inputs), list(names), **attributes))
        return list(names)

    def quantize(self, real: str, *, scale: float | None = None, zero_point: int = -5) -> str:
        """QuantizeLinear and DequantizeLinear. scale: None for one that fits the values that come."""
        scale = self.fitting_scale(real) if scale is None else scale
        step, zero = self._quantization(scale, zero_point)
        stored = self.node("QuantizeLinear", real, step, zero)
        result = self.node("DequantizeLinear", stored, step, zero)
        self._scales[result] = (stored, float(np.float32(scale)))
        return result

    def dequantize(self, stored: str, scale: float, zero_point: int) -> str:
        """DequantizeLinear of an 8-bit tensor."""
        result = self.node("DequantizeLinear", stored, *self._quantization(scale, zero_point))
        self._scales[result] = (stored, float(np.float32(scale)))
        return result

    def stored(self, tensor: str) -> str:
        """The 8-bit tensor behind what `quantize` returned."""
        return self._scales[tensor][0]

    def fitting_scale(self, real: str) -> float:
        """A scale with which about one in a hundred of a tensor's values is clamped."""
        outputs, steps = self._outputs, self._steps
        self._outputs, self._steps = [], {}
        self.output(real)
        (values,) = run_onnxruntime(self.model(), self.images(1)[0], optimize=False).values()
        self._outputs, self._steps = outputs, steps
        return float(np.quantile(np.abs(values), 0.99)) / 126.37 or 1.0

    def output(self, tensor: str, *, stored: bool = False, kind: int = TensorProto.FLOAT) -> str:
        """Make a tensor an output. stored: the 8-bit tensor instead of the real one. kind: of what is not quantized."""
        behind, step = self._scales.get(tensor, (tensor, 1.0))
        name = behind if stored else tensor
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[self.dtype] if stored else kind, None))
        self._steps[name] = 1.0 if stored else step
        return name

    def stored_output(self, name: str, shape: Sequence[int]) -> None:
        """Make an 8-bit tensor, of which no DequantizeLinear says how it is quantized, an output."""
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[self.dtype], shape))
        self._steps[name] = 1.0

    def state_shape(self, name: str, shape: Sequence[int]) -> None:
        """Say which shape a real tensor has, where that is not inferred."""
        self._stated.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self) -> onnx.ModelProto:
        """What has been built so far."""
        real = _TYPES[self.dtype] if self._stored else TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(name, real, shape) for name, (shape, _, _) in self._inputs.items()]
        graph = helper.make_graph(self._nodes, "graph", inputs, self._outputs, self._constants, value_info=self._stated)
        domains = {node.domain for node in self._nodes} - {""}
        opsets = [helper.make_opsetid("", self._opset), *(helper.make_opsetid(d, 1) for d in sorted(domains))]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return shape_inference.infer_shapes(model, data_prop=True)  # outputs must have a shape

    def images(self, count: int) -> tuple[Image, ...]:
        """Images whose values are every number of their type alike."""
        rng, lowest = np.random.default_rng(77), self._offset - 128
        images: list[Image] = []
        for _ in range(count):
            image: Image = {}
            for name, (shape, scale, zero_point) in self._inputs.items():
                codes = rng.integers(lowest, lowest + 256, shape)
                real = ((codes - zero_point - self._offset) * np.float64(np.float32(scale))).astype(np.float32)
                image[name] = codes.astype(self.dtype) if self._stored else real
            images.append(image)
        return tuple(images)

    def case(self, images: int = 4) -> Case:
        """The model with images."""
        return Case(model=self.model(), images=self.images(images), steps=dict(self._steps))

    @property
    def _offset(self) -> int:
        return 128 if self.dtype == "uint8" else 0

    def _quantization(self, scale: float, zero_point: int) -> tuple[str, str]:
        zero = np.asarray(zero_point + self._offset, self.dtype)
        return self.constant(np.asarray(scale, np.float32)), self.constant(zero)

    def _stored_constant(self, stored: Array, scale: float | Array, zero: int, axis: int) -> str:
        steps = np.asarray(scale, np.float32)
        inputs = [self.constant(stored), self.constant(steps), self.constant(np.full(steps.shape, zero, stored.dtype))]
        return self.node("DequantizeLinear", *inputs, **({"axis": axis} if steps.ndim else {}))


def run_onnxruntime(model: onnx.ModelProto, image: Image, *, optimize: bool = True) -> dict[str, Array]:
    """The reference: outputs by name. optimize: as its users have it, with quantized kernels where there are some."""
    (result,) = run_onnxruntime_each(model, [image], optimize=optimize)
    return result


def onnxruntime_session(model: onnx.ModelProto, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """The reference, with kernels whose sums do not overflow: on x86 without VNNI the default ones add in 16 bits.

    Models with QLinearConv and the like of int8 have no other kernels than the default ones, and these do not overflow.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    kinds = {node.op_type for node in model.graph.node}
    if not kinds & {"QLinearConv", "QLinearMatMul", "QGemm"}:
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_onnxruntime_each(
    model: onnx.ModelProto, images: Sequence[Image], *, optimize: bool = True
) -> list[dict[str, Array]]:
    """As `run_onnxruntime`, for one image after the other."""
    session = onnxruntime_session(model, optimize=optimize)
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, map(np.asarray, session.run(None, image)), strict=True)) for image in images]

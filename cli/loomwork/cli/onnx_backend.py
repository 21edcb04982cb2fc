# SPDX-License-Identifier: Apache-2.0
"""Loomwork as a backend of ONNX (onnx.backend.base): compile a model and run it, with one call each.

from loomwork.cli import onnx_backend

rep = onnx_backend.prepare(onnx.load("net.onnx"), config="small")
(y,) = rep.run([x])
rep.operators        # where each operator ran, and why not on the accelerator

Loomwork needs weights, scales and shapes as constants. A model that takes such a thing as an input is compiled when it
runs, for the values that it is given; so is a model that leaves the shape of an input open. What the accelerator cannot
execute at all runs wholly on ONNX Runtime.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference, version_converter
from onnx.backend.base import Backend, BackendRep, Device, DeviceType

from loomwork.arch.config import Config, load_config
from loomwork.arch.program import Program
from loomwork.compiler.driver import CONVERSIONS, compile_model
from loomwork.compiler.graph import CompileError
from loomwork.compiler.importers.onnx import LAYOUT_REASON, OUTPUT_REASON
from loomwork.compiler.importers.onnx_batch import for_one_image
from loomwork.compiler.importers.onnx_operators import RULES
from loomwork.compiler.unsupported import NothingAcceleratedError
from loomwork.sim.backend import Backend as Engine
from loomwork.sim.backend import RunError, run_program
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.host import HostError, onnx_session
from loomwork.sim.verilator import VerilatorBackend

Array = NDArray[Any]


class EngineName(StrEnum):
    """What executes the accelerator's commands."""

    GOLDEN = "golden"
    VERILATOR = "verilator"


class BackendError(ValueError):
    """A model that neither Loomwork nor ONNX Runtime can run, or inputs that do not fit it; one sentence."""


class Operator(NamedTuple):
    """Where one operator ran. where: "accelerator" or "host"; reason: why on the host."""

    operator: str
    where: str
    reason: str


OLDER_OPSETS = 21
"""Oldest opset to which a model is lowered for ONNX Runtime."""
ACCELERATOR, HOST = "accelerator", "host"

COMPUTED: Mapping[str, int] = {
    **{op: rule.activations for op, rule in RULES.items()},
    **dict.fromkeys(("PRelu", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "BatchNormalization"), 1),
    **dict.fromkeys(("DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze", "Split"), 1),
}
"""How many of its first inputs an operator may compute with; the others must be constants."""


def parameters(model: onnx.ModelProto) -> frozenset[str]:
    """Inputs of the model that only stand where the accelerator needs constants: weights, scales, shapes."""
    needed: set[str] = set()
    computed: set[str] = {value.name for value in model.graph.output}
    for node in model.graph.node:
        count = COMPUTED.get(node.op_type, len(node.input)) if not node.domain else len(node.input)
        computed.update(node.input[:count])
        needed.update(node.input[count:])
    return frozenset({value.name for value in model.graph.input} & needed - computed)


def with_constants(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with some inputs bound to values."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [value for value in result.graph.input if value.name not in values]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return result


class LoomworkRep(BackendRep):
    """A model that is ready to run, as often as wanted.

    program: None as long as nothing runs on the accelerator, and before the first run of a model that needs its inputs
    to be compiled (see `operators`).
    """

    def __init__(self, model: onnx.ModelProto, config: Config, engine: EngineName) -> None:
        given = {tensor.name for tensor in model.graph.initializer}
        self._model = model
        self._inputs = [value.name for value in model.graph.input if value.name not in given]
        self._parameters = parameters(model)
        self._config = config
        self._engine: Engine = GoldenBackend() if engine is EngineName.GOLDEN else VerilatorBackend()
        self._compiled_for: object = None
        self._whole: onnxruntime.InferenceSession | None = None
        self._images = False
        self.program: Program | None = None
        self.operators: list[Operator] = []
        """Where each operator of the compiled model runs, in order; empty before it is compiled."""
        fixed = all(dim.dim_value > 0 for value in self._open() for dim in value.type.tensor_type.shape.dim)
        if fixed and not self._parameters:
            self._compile({}, {})

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run once. inputs: arrays in the order of the model's inputs, one alone, or by name.

        Returns the outputs in the model's order. Raises BackendError for inputs that do not fit.
        """
        del kwargs
        values = self._by_name(inputs)
        constants = {name: np.asarray(values[name]) for name in sorted(self._parameters)}
        computed = {name: value for name, value in values.items() if name not in constants}
        shapes = {name: tuple(np.shape(value)) for name, value in computed.items()}
        key = (shapes, {name: (data.dtype, data.shape, data.tobytes()) for name, data in constants.items()})
        if (self._open_shapes() or self._parameters) and self._compiled_for != key:
            self._compile(constants, shapes if self._open_shapes() else {})
            self._compiled_for = key
        if self.program is None:
            return tuple(self._host(values))
        return tuple(self._run(self.program, computed))

    def _open(self) -> list[onnx.ValueInfoProto]:
        return [value for value in self._model.graph.input if value.name in self._inputs]

    def _open_shapes(self) -> bool:
        return any(
            dim.dim_value <= 0
            for value in self._open()
            if value.name not in self._parameters
            for dim in value.type.tensor_type.shape.dim
        )

    def _by_name(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        found: dict[str, Any]
        if isinstance(inputs, Mapping):
            found = dict(inputs)
        else:
            if len(inputs) > len(self._inputs):
                raise BackendError(f"the model takes {len(self._inputs)} inputs, not {len(inputs)}")
            found = dict(zip(self._inputs, inputs, strict=False))
        # A single number may come as a scalar of NumPy; a sequence stays a list.
        found = {name: value if isinstance(value, list) else np.asarray(value) for name, value in found.items()}
        if missing := [name for name in self._inputs if name not in found]:
            raise BackendError(f"input {missing[0]!r} is missing; the model takes {', '.join(self._inputs)}")
        return found

    def _compile(self, constants: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compile for these constants and shapes; on failure, the host runs the whole model."""
        model = with_constants(self._model, constants)
        for value in model.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
                dim.dim_value = size
        self.program, self.operators = self._attempt(model)
        self._images = False
        if _on_host(self.operators) and any(_first(value) > 1 for value in model.graph.input):
            self._by_image(model)

    def _attempt(self, model: onnx.ModelProto) -> tuple[Program | None, list[Operator]]:
        try:
            program = compile_model(model, self._config)
        except NothingAcceleratedError as error:
            return None, [Operator(name, HOST, reason) for name, reason in error.operators]
        except CompileError as error:
            # What the importer cannot read, ONNX Runtime may still be able to run.
            return None, [Operator(_title(node), HOST, str(error)) for node in model.graph.node]
        operators = [
            Operator(_named(layer["operator"], layer["name"]), layer["where"], layer["reason"])
            for layer in program.report["layers"]
        ]
        return program, operators

    def _by_image(self, model: onnx.ModelProto) -> None:
        """Compile a batch as single images, where that is the same and brings more onto the accelerator."""
        single = for_one_image(shape_inference.infer_shapes(model, data_prop=True))
        if isinstance(single, str):
            self.operators = [
                ran._replace(reason=f"{ran.reason}; {single}") if "batch" in ran.reason else ran
                for ran in self.operators
            ]
            return
        program, operators = self._attempt(single)
        if program is not None and _on_host(operators) < _on_host(self.operators):
            self.program, self.operators, self._images = program, operators, True

    def _run(self, program: Program, values: Mapping[str, Array]) -> list[Array]:
        tensors = {tensor.name: tensor for tensor in program.tensors}
        feed: dict[str, Array] = {}
        for name in program.inputs:
            value, one = np.asarray(values[name]), tensors[name].image_shape
            wanted = (len(value), *one) if self._images else tensors[name].shape
            if value.shape != wanted:
                raise BackendError(f"input {name!r} must have shape {list(wanted)}, not {list(value.shape)}")
            feed[name] = value if self._images else value.reshape(1, *one)
        try:
            outputs = run_program(program, feed, self._engine).outputs
        except (RunError, HostError) as error:
            raise BackendError(str(error)) from error
        return [
            outputs[name] if self._images else outputs[name].reshape(tensors[name].shape) for name in program.outputs
        ]

    def _host(self, values: Mapping[str, Any]) -> list[Any]:
        for name, value in values.items():
            if not isinstance(value, list) and value.dtype.isbuiltin == 2:  # of ml_dtypes
                raise BackendError(f"input {name!r} is {value.dtype}, of which ONNX Runtime takes no arrays")
        if self._whole is None:
            try:
                self._whole = _session(self._model)
            except BackendError as error:
                reason = self.operators[0].reason if self.operators else "it computes nothing"
                raise BackendError(f"neither the accelerator ({reason}) nor {error}") from None
        try:
            return list(self._whole.run(None, dict(values)))
        except Exception as error:  # the runtime has errors of many kinds for what it does not execute
            raise BackendError(f"ONNX Runtime: {_line(error)}") from None


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The model on ONNX Runtime, in an older opset where it has no kernels for the model's own. Raises BackendError."""
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    first: Exception | None = None
    for older in (version, *range(version - 1, OLDER_OPSETS - 1, -1)):
        try:
            tried = model if older == version else version_converter.convert_version(model, older)
            return onnx_session(tried.SerializeToString())
        except Exception as error:  # both have errors of many kinds for what they do not know
            first = first or error
    assert first is not None
    raise BackendError(f"ONNX Runtime ({_line(first)})")


def computes_on_host(ran: Operator) -> bool:
    """Whether the host did more than turn an input or output over into what the accelerator reads and back."""
    converts = ran.operator.split()[0] in CONVERSIONS or ran.reason in (LAYOUT_REASON, OUTPUT_REASON)
    return ran.where == HOST and not converts


def _on_host(operators: Sequence[Operator]) -> int:
    return sum(map(computes_on_host, operators))


def _first(value: onnx.ValueInfoProto) -> int:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value if dims else 0


def _title(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {next(iter(node.output), '')}"


def _named(operator: str, name: str) -> str:
    """Host operators carry their name already."""
    return operator if name == operator else f"{operator} {name}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class LoomworkBackend(Backend):
    """See the module."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Simulated, the accelerator is on the CPU's side."""
        return device.split(":", maxsplit=1)[0] == "CPU" and Device(device).type == DeviceType.CPU

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model is valid, so that accelerator and host together may run it."""
        try:
            cls.prepare(model, device, **kwargs)
        except (BackendError, onnx.checker.ValidationError):
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> LoomworkRep:
        """Compile a model.

        config: name of a preset or a JSON file, or a Config ("base"). engine: what executes the commands, "golden" (the
        NumPy model) or "verilator" (the RTL). Raises BackendError, and ValidationError for a model that is not valid.
        """
        if not cls.supports_device(device):
            raise BackendError(f"there is no device {device!r}: the accelerator is simulated on CPU")
        config, engine = kwargs.pop("config", "base"), kwargs.pop("engine", EngineName.GOLDEN)
        if engine not in tuple(EngineName):
            raise BackendError(f"engine must be one of {', '.join(EngineName)}, not {engine!r}")
        super().prepare(model, device)
        return LoomworkRep(model, config if isinstance(config, Config) else load_config(config), EngineName(engine))

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one operator. outputs_info: type and shape of its outputs, when they do not follow from its inputs.

        opset_version: of the operator, the newest by default; the other keywords are those of `prepare`.
        """
        version = int(kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))
        names = [name for name in node.input if name]
        arrays = [np.asarray(value) for value in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
        if len(names) != len(arrays):
            raise BackendError(f"{node.op_type} takes {len(names)} inputs here, not {len(arrays)}")
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in zip(names, arrays, strict=True)
        ]
        made = [name for name in node.output if name]
        if outputs_info is None:
            results = [onnx.ValueInfoProto(name=name) for name in made]
        else:
            results = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                for name, (dtype, shape) in zip(made, outputs_info, strict=True)
            ]
        graph = helper.make_graph([node], "node", given, results)
        opset = helper.make_opsetid(node.domain, version)
        model = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset]), data_prop=True)
        return cls.run_model(model, arrays, device, **kwargs)


prepare = LoomworkBackend.prepare
run_model = LoomworkBackend.run_model
run_node = LoomworkBackend.run_node
supports_device = LoomworkBackend.supports_device
is_compatible = LoomworkBackend.is_compatible

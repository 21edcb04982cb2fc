# SPDX-License-Identifier: Apache-2.0
"""Cutting operators out of an ONNX model into one of their own, for ONNX Runtime to run on the host.

The accelerator stores images with channels behind pixels and as int8. Where a model meets it, the cut-out model turns
the tensors over: bytes as the accelerator has them on one side, the tensor as the network means it on the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from loomwork.compiler.importers.onnx_codes import Index, offset
from loomwork.compiler.importers.onnx_model import Model, Node


@dataclass(frozen=True, kw_only=True, eq=False)
class Device:
    """How the accelerator stores a tensor. name: in the program. index: byte offset of each number."""

    name: str
    index: Index


class HostModel:
    """A model in the making: operators are added in order of execution, and what they need comes with them.

    available: whether a tensor is there, as the network means it, when the model starts. devices: tensors that the
    accelerator computes, by name.
    """

    def __init__(self, model: Model, available: Callable[[str], bool], devices: Mapping[str, Device]) -> None:
        self._model = model
        self._available = available
        self._devices = devices
        self._there: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self.inputs: dict[str, onnx.ValueInfoProto] = {}

    def add(self, node: Node) -> None:
        """Append an operator as it is."""
        for name in (*node.inputs, *node.captured):
            if name:
                self.need(name)
        if node.outputs[0] not in self._there:
            self._nodes.append(node.proto)
            self._there.update(node.outputs)

    def need(self, name: str) -> None:
        """See to it that a tensor is there."""
        if name in self._there:
            return
        value = self._model.values.get(name)
        if value is not None and value.data is not None:
            self._constants[name] = numpy_helper.from_array(value.data, name)
        elif self._available(name):
            self.inputs[name] = self._info(name)
        elif name in self._devices:
            self._from_device(name)
        else:
            self.add(self._model.producers[name])
        self._there.add(name)

    def to_device(self, name: str, device: Device) -> None:
        """Append what turns a tensor into the bytes that the accelerator reads."""
        self.need(name)
        value = self._model.values[name]
        low = self._append("Cast", [name], f"{device.name}/wide", to=onnx.TensorProto.INT32)
        low = self._append("Sub", [low, self._number(offset(value.dtype))], f"{device.name}/signed")
        low = self._append("Cast", [low], f"{device.name}/int8", to=onnx.TensorProto.INT8)
        places = np.empty(device.index.size, np.int64)
        places[device.index.reshape(-1)] = np.arange(device.index.size)
        self._move(low, places, (1, places.size), device.name)
        self._there.add(device.name)

    def build(self, outputs: Sequence[str], devices: Sequence[Device] = ()) -> bytes:
        """The finished model; the same operators give the same bytes.

        outputs: tensors as the network means them. devices: tensors as the accelerator reads them, behind those.
        """
        for name in outputs:
            self.need(name)
        given = [self._info(name) for name in outputs]
        given += [
            helper.make_tensor_value_info(device.name, onnx.TensorProto.INT8, (1, device.index.size))
            for device in devices
        ]
        used = {name for node in self._nodes for name in _all_inputs(node)}
        constants = [tensor for name, tensor in sorted(self._constants.items()) if name in used or name in outputs]
        graph = helper.make_graph(self._nodes, "host", list(self.inputs.values()), given, constants)
        model = helper.make_model(
            graph,
            opset_imports=list(self._model.opsets),
            ir_version=self._model.ir_version,
            functions=list(self._model.functions),
        )
        return model.SerializeToString(deterministic=True)

    def _from_device(self, name: str) -> None:
        """Append what makes a tensor of the bytes that the accelerator wrote."""
        device, value = self._devices[name], self._model.values[name]
        self.inputs[device.name] = helper.make_tensor_value_info(
            device.name, onnx.TensorProto.INT8, (1, device.index.size)
        )
        moved = self._move(device.name, device.index.reshape(-1).astype(np.int64), value.shape, f"{name}/signed")
        wide = self._append("Cast", [moved], f"{name}/wide", to=onnx.TensorProto.INT32)
        wide = self._append("Add", [wide, self._number(offset(value.dtype))], f"{name}/raised")
        self._append("Cast", [wide], name, to=helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)))

    def _move(self, source: str, places: "np.typing.NDArray[np.int64]", shape: tuple[int, ...], result: str) -> str:
        """Append what puts number `places[i]` of a tensor at position i of a tensor of another shape."""
        flat = self._append("Reshape", [source, self._list([-1], "flat")], f"{result}/flat")
        if not np.array_equal(places, np.arange(places.size)):
            where = f"{result}/places"
            self._constants[where] = numpy_helper.from_array(places, where)
            flat = self._append("Gather", [flat, where], f"{result}/moved")
        return self._append("Reshape", [flat, self._list(shape, "shape " + "x".join(map(str, shape)))], result)

    def _append(self, op: str, inputs: Sequence[str], output: str, **attributes: int) -> str:
        node = helper.make_node(op, list(inputs), [output])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._nodes.append(node)
        return output

    def _list(self, values: Sequence[int], name: str) -> str:
        self._constants[f"loomwork/{name}"] = numpy_helper.from_array(np.array(values, np.int64), f"loomwork/{name}")
        return f"loomwork/{name}"

    def _number(self, value: int) -> str:
        name = f"loomwork/{value}"
        self._constants[name] = numpy_helper.from_array(np.array(value, np.int32), name)
        return name

    def _info(self, name: str) -> onnx.ValueInfoProto:
        value = self._model.values[name]
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), value.shape)


def _all_inputs(node: onnx.NodeProto) -> list[str]:
    found = list(node.input)
    for entry in node.attribute:
        for graph in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
            found += [value.name for value in graph.output]
            for inner in graph.node:
                found += _all_inputs(inner)
    return found


def refusal(model: bytes) -> str | None:
    """Why ONNX Runtime cannot run a model, None when it can."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has errors of many kinds
        return " ".join(str(error).split("] : ")[-1].split(" : ", 2)[-1].split())
    return None

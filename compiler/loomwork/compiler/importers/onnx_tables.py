# SPDX-License-Identifier: Apache-2.0
"""Functions of one number: ONNX Runtime computes them for all 256 numbers there are, the accelerator looks them up."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.graph import Table
from loomwork.compiler.importers.onnx_arithmetic import clamp, quantization, result_quantization
from loomwork.compiler.importers.onnx_codes import Quantization
from loomwork.compiler.importers.onnx_evaluate import evaluate
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_sight import Build, Built, Sight
from loomwork.compiler.importers.onnx_units import Unit


def table(unit: Unit, sight: Sight) -> Built:
    """A function of one tensor, which it may read several times; other inputs are single constants."""
    if len({source.root for source in unit.read}) != 1:
        raise MisfitError(f"{len(unit.read)} of its inputs are computed; the accelerator looks up a function of one")
    for place, source in enumerate(unit.sources):
        constant = unit.constant(place) if source is None else None
        if constant is not None and constant.size != 1:
            name = unit.node.inputs[place]
            raise MisfitError(f"its constant {name!r} has {constant.size} values; the accelerator needs one for all")
    layer = Table(
        name=unit.name,
        operator=unit.node.op,
        input=sight.inputs[0].name,
        output=sight.output.name,
        table=_entries(unit),
    )
    return Built(layers=(layer,))


def table_or(build: Build) -> Build:
    """A table where the unit is a function of one tensor and single constants, else what `build` makes of it."""

    def choose(unit: Unit, sight: Sight) -> Built:
        single = len(unit.read) == 1 and all(
            constant is not None and constant.size == 1
            for place, source in enumerate(unit.sources)
            if source is None
            for constant in [unit.constant(place)]
        )
        joined = any(source.table is not None for source in unit.read)
        return table(unit, sight) if single or joined else build(unit, sight)

    return choose


def _entries(unit: Unit) -> NDArray[np.int8]:
    """The result's numbers for the source's numbers -128 .. 127."""
    numbers = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int8)
    node = onnx.NodeProto()
    node.CopyFrom(unit.node.proto)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    feed: dict[str, NDArray[np.generic]] = {}

    def step(op: str, source: str, rule: Quantization, result: str) -> None:
        """Append a QuantizeLinear or DequantizeLinear."""
        names = [f"{result} scale", f"{result} zero point"]
        values = [np.array(rule.scale, np.float32), np.array(rule.zero_point, np.int8)]
        constants.extend(numpy_helper.from_array(value, name) for value, name in zip(values, names, strict=True))
        nodes.append(helper.make_node(op, [source, *names], [result]))

    for place, (name, source) in enumerate(zip(unit.node.inputs, unit.sources, strict=True)):
        if not name:
            continue
        node.input[place] = f"loomwork/input {place}"
        if source is None:
            value = unit.constant(place)
            assert value is not None
            constants.append(numpy_helper.from_array(np.asarray(value).reshape(()), node.input[place]))
        else:
            feed[f"loomwork/stored {place}"] = numbers if source.table is None else source.table
            step("DequantizeLinear", f"loomwork/stored {place}", quantization(source), node.input[place])
    nodes.append(node)
    step("QuantizeLinear", node.output[0], result_quantization(unit), "loomwork/result")
    output = helper.make_tensor_value_info("loomwork/result", onnx.TensorProto.INT8, numbers.shape)
    low, high = clamp(unit)
    return np.clip(evaluate(unit.model, nodes, feed, constants, output), low, high).astype(np.int8)

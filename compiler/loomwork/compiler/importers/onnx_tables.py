# SPDX-License-Identifier: Apache-2.0
"""Functions of one number: ONNX Runtime computes them for all 256 numbers there are, the accelerator looks them up."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.graph import Table
from loomwork.compiler.importers.onnx_arithmetic import clamp, quantization, result_quantization
from loomwork.compiler.importers.onnx_evaluate import evaluate
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_sight import Build, Built, Sight
from loomwork.compiler.importers.onnx_units import Unit


def table(unit: Unit, sight: Sight) -> Built:
    """A function of one tensor whose other inputs are single constants."""
    if len(unit.read) != 1:
        raise MisfitError(f"{len(unit.read)} of its inputs are computed; the accelerator looks up a function of one")
    position = next(place for place, source in enumerate(unit.sources) if source is not None)
    for other, name in enumerate(unit.node.inputs):
        constant = unit.constant(other) if name and other != position else None
        if constant is not None and constant.size != 1:
            raise MisfitError(f"its constant {name!r} has {constant.size} values; the accelerator needs one for all")
    layer = Table(
        name=unit.name,
        operator=unit.node.op,
        input=sight.inputs[0].name,
        output=sight.output.name,
        table=_entries(unit, position),
    )
    return Built(layers=(layer,))


def table_or(build: Build) -> Build:
    """A table where all but one input are single constants, else what `build` makes of the unit."""

    def choose(unit: Unit, sight: Sight) -> Built:
        single = len(unit.read) == 1 and all(
            constant is not None and constant.size == 1
            for place, source in enumerate(unit.sources)
            if source is None
            for constant in [unit.constant(place)]
        )
        return table(unit, sight) if single else build(unit, sight)

    return choose


def _entries(unit: Unit, position: int) -> "np.typing.NDArray[np.int8]":
    """The result's numbers for the source's numbers -128 .. 127."""
    before, after = quantization(unit.read[0]), result_quantization(unit)
    node = onnx.NodeProto()
    node.CopyFrom(unit.node.proto)
    constants = [
        numpy_helper.from_array(np.array(before.scale, np.float32), "loomwork/scale"),
        numpy_helper.from_array(np.array(before.zero_point, np.int8), "loomwork/zero"),
        numpy_helper.from_array(np.array(after.scale, np.float32), "loomwork/result scale"),
        numpy_helper.from_array(np.array(after.zero_point, np.int8), "loomwork/result zero"),
    ]
    for place, name in enumerate(unit.node.inputs):
        if place == position:
            node.input[place] = "loomwork/real"
        elif name:
            value = unit.constant(place)
            assert value is not None
            constants.append(numpy_helper.from_array(np.asarray(value).reshape(()), f"loomwork/constant {place}"))
            node.input[place] = f"loomwork/constant {place}"
    nodes = [
        helper.make_node("DequantizeLinear", ["loomwork/stored", "loomwork/scale", "loomwork/zero"], ["loomwork/real"]),
        node,
        helper.make_node(
            "QuantizeLinear",
            [node.output[0], "loomwork/result scale", "loomwork/result zero"],
            ["loomwork/result"],
        ),
    ]
    result = evaluate(
        unit.model,
        nodes,
        {"loomwork/stored": np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int8)},
        constants,
        helper.make_tensor_value_info("loomwork/result", onnx.TensorProto.INT8, (1 + INT8_MAX - INT8_MIN,)),
    )
    low, high = clamp(unit)
    return np.clip(result, low, high).astype(np.int8)

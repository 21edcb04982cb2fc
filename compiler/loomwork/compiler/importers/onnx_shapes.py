# SPDX-License-Identifier: Apache-2.0
"""Shapes that ONNX's own inference does not find: behind loops, and behind operators of other domains.

A loop could change the shape of what it carries; then the model's word counts. Operators of ONNX Runtime's domain are
unknown to the `onnx` package; the runtime itself is asked, by running the model once on zeros.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import helper

_STANDARD = ("", "ai.onnx")
_MOST_ROUNDS = 8

Infer = Callable[[onnx.ModelProto], onnx.ModelProto]


def fixed_shapes(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Computed tensors of which the model says every dimension, copied."""
    found: dict[str, onnx.ValueInfoProto] = {}
    for info in (*model.graph.value_info, *model.graph.output):
        if _is_fixed(info):
            found[info.name] = onnx.ValueInfoProto()
            found[info.name].CopyFrom(info)
    return found


def with_missing_shapes(
    model: onnx.ModelProto, stated: Mapping[str, onnx.ValueInfoProto], infer: Infer
) -> onnx.ModelProto:
    """The model with shapes that inference did not find, as far as they can be had.

    stated: what the model itself says. infer: shape inference, for what follows from the new ones.
    """
    for _ in range(_MOST_ROUNDS):
        known = {info.name for info in (*model.graph.value_info, *model.graph.output) if _is_fixed(info)}
        missing = [(node, name) for node in model.graph.node for name in node.output if name and name not in known]
        wanted = [stated[name] for _, name in missing if name in stated]
        if not wanted and any(node.domain not in _STANDARD for node, _ in missing):
            wanted = _asked(model, [name for node, name in missing if node.domain not in _STANDARD])
        if not wanted:
            break
        model = infer(_with(model, wanted))
    return model


def _is_fixed(info: onnx.ValueInfoProto) -> bool:
    tensor = info.type.tensor_type
    return bool(tensor.elem_type) and tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim)


def _with(model: onnx.ModelProto, infos: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """A copy that has these shapes, in place of those that it has without dimensions."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    by_name = {info.name: info for info in infos}
    kept = [info for info in result.graph.value_info if info.name not in by_name]
    outputs = {output.name for output in result.graph.output}
    for output in result.graph.output:
        if output.name in by_name:
            output.CopyFrom(by_name[output.name])
    del result.graph.value_info[:]
    result.graph.value_info.extend([*kept, *(info for info in infos if info.name not in outputs)])
    return result


def _asked(model: onnx.ModelProto, names: list[str]) -> list[onnx.ValueInfoProto]:
    """Types and shapes of tensors when the model runs on zeros; nothing when it does not run."""
    trial = onnx.ModelProto()
    trial.CopyFrom(model)
    del trial.graph.output[:]
    trial.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    feed = {value.name: _zeros(value) for value in model.graph.input}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(trial.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = [np.asarray(result) for result in session.run(names, feed)]
        return [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(result.dtype), result.shape)
            for name, result in zip(names, results, strict=True)
        ]
    except Exception:  # the runtime has errors of many kinds; what is missing then stays so
        return []


def _zeros(value: onnx.ValueInfoProto) -> "np.typing.NDArray[np.generic]":
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return np.zeros([dim.dim_value for dim in tensor.shape.dim], dtype)

# SPDX-License-Identifier: Apache-2.0
"""What one operator computes, asked of ONNX Runtime while the network is compiled."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_model import Array, Model


def evaluate(
    model: Model,
    nodes: Sequence[onnx.NodeProto],
    feed: Mapping[str, NDArray[np.generic]],
    constants: Sequence[onnx.TensorProto],
    output: onnx.ValueInfoProto,
) -> Array:
    """The tensor `output` of a few operators. model: whose operator sets they are of. feed: what they read, by name.

    Raises MisfitError when ONNX Runtime does not execute them.
    """
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(data.dtype), data.shape)
        for name, data in feed.items()
    ]
    graph = helper.make_graph(list(nodes), "alone", inputs, [output], list(constants))
    proto = helper.make_model(graph, opset_imports=list(model.opsets), ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it does not execute is told by the exception
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (result,) = session.run(None, dict(feed))
    except Exception as error:  # the runtime has errors of many kinds, and they all mean that it does not run this
        raise MisfitError(f"ONNX Runtime does not execute it alone ({' '.join(str(error).split())[:80]})") from None
    return np.asarray(result)

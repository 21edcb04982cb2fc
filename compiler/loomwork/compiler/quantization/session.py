# SPDX-License-Identifier: Apache-2.0
"""Running a model in ONNX Runtime as its operators are defined: one thread of decisions, no fused kernels."""

import contextlib
import io
import logging
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.generic]

_ERRORS_ONLY = 3
"""ONNX Runtime's severity of a message about an error; its warnings are about models we are about to change."""


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keeps what ONNX Runtime's tools and onnxslim print and log away from the user; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class Session:
    """A model ready to run. outputs: further tensors whose values are wanted, besides the model's own outputs."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str] = ()) -> None:
        names = [value.name for value in model.graph.output]
        extended = onnx.ModelProto()
        extended.CopyFrom(model)
        for name in outputs:
            if name not in names:
                extended.graph.output.add().name = name
        self.names = [value.name for value in extended.graph.output]
        options = onnxruntime.SessionOptions()
        # A fused integer kernel may round or saturate otherwise than the operators it stands for.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = _ERRORS_ONLY + 1
        self._session = onnxruntime.InferenceSession(
            extended.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Values of all outputs by name."""
        values = self._session.run(self.names, dict(feed))
        return {name: np.asarray(value) for name, value in zip(self.names, values, strict=True)}

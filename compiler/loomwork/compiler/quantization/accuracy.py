# SPDX-License-Identifier: Apache-2.0
"""Top-1 accuracy of a classifier."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from loomwork.compiler.quantization.error import QuantizeError
from loomwork.compiler.quantization.samples import check_samples
from loomwork.compiler.quantization.session import Session
from loomwork.compiler.quantization.shapes import fix_shapes

Array = NDArray[np.generic]


def top1(
    model: onnx.ModelProto, data: Mapping[str, Array], labels: Array, shapes: Mapping[str, Sequence[int]] | None = None
) -> float:
    """Share of samples whose largest score is that of their label, run in ONNX Runtime.

    data: `[samples, ...]` of each input, by name. labels: `[samples]` integers. shapes: of inputs with dynamic
    dimensions. Raises QuantizeError when they do not belong together, or the model is no classifier of one output.
    """
    fixed = fix_shapes(model, shapes or {})
    samples = check_samples(fixed, data, "test data")
    labels = labels.reshape(-1)
    if not np.issubdtype(labels.dtype, np.integer):
        raise QuantizeError(f"labels are {labels.dtype}, expected integers: give the number of each class")
    session = Session(fixed)
    if len(session.names) != 1:
        raise QuantizeError(f"accuracy needs one output, the model has {', '.join(session.names)}: leave the test out")
    scores = np.concatenate([_scores(session.run(feed)[session.names[0]], feed) for feed in samples])
    if len(labels) != len(scores):
        raise QuantizeError(f"there are {len(labels)} labels for {len(scores)} samples of test data: give one for each")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        raise QuantizeError(
            f"labels go from {labels.min()} to {labels.max()}, the model has classes 0 to {scores.shape[1] - 1}: check "
            "that they belong to it"
        )
    return float(np.mean(scores.argmax(axis=1) == labels))


def _scores(output: Array, feed: Mapping[str, Array]) -> Array:
    """`[samples of this inference, classes]`."""
    batch = min((len(array) for array in feed.values() if array.ndim > 1), default=1)
    return output.reshape(batch if output.ndim > 1 else 1, -1)

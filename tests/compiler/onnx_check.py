# SPDX-License-Identifier: Apache-2.0
"""An ONNX model through importer, compiler and golden model, compared with ONNX Runtime.

The contract: 99.9 % of the outputs are equal, and none is further away than one quantization step. ONNX Runtime
computes in float32, so that what lies next to the middle between two steps can fall to either side.
"""

from collections.abc import Sequence

import numpy as np

from loomwork.arch.config import SMALL, Config
from loomwork.compiler.driver import CONVERSIONS, compile_partition
from loomwork.compiler.graph import Graph, HostPart, Layer, Partition
from loomwork.compiler.importers.onnx import import_onnx
from loomwork.sim.backend import Backend, run_program
from loomwork.sim.golden import GoldenBackend
from tests.onnx_models import Array, Case, Image, run_onnxruntime_each
from tests.reference import run_partition

EQUAL = 0.999
FEWEST_VALUES = 12
"""An output with fewer different numbers finds no errors."""


def layers(partition: Partition) -> list[Layer]:
    """What the accelerator executes."""
    return [layer for part in partition.parts if isinstance(part, Graph) for layer in part.layers]


def host_operators(partition: Partition) -> dict[str, str]:
    """What the host computes, conversions left out, by operator and name, with the reasons."""
    operators = [pair for part in partition.parts if isinstance(part, HostPart) for pair in part.operators]
    return {operator: reason for operator, reason in operators if operator.split()[0] not in CONVERSIONS}


def check(
    case: Case,
    *,
    config: Config = SMALL,
    host: Sequence[str] | None = (),
    lowered: bool = True,
    fewest: int = FEWEST_VALUES,
    backends: Sequence[Backend] = (),
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Partition:
    """Compare the definitions of all layers with ONNX Runtime, and the compiled program with the definitions.

    host: types of the operators that the host is to compute, and no others; None for any. lowered: False for layers
    that no command executes yet. fewest: different values of each output. backends: beside the golden model.
    """
    partition = import_onnx(case.model, "model", shapes=shapes)
    found = host_operators(partition)
    assert host is None or sorted(operator.split()[0] for operator in found) == sorted(host), found
    expected = run_onnxruntime_each(case.model, case.images)
    defined = [run_partition(partition, image) for image in case.images]
    for name, step in case.steps.items():
        compare(
            np.stack([values[name].reshape(one[name].shape) for values, one in zip(defined, expected, strict=True)]),
            np.stack([one[name] for one in expected]),
            step,
            name,
            fewest,
        )
    if lowered:
        program = compile_partition(partition, config, name="model")
        for backend in (GoldenBackend(), *backends):
            outputs = run_program(program, batch(case.images), backend).outputs
            for name in partition.outputs:
                for image, values in enumerate(defined):
                    np.testing.assert_array_equal(
                        outputs[name][image].reshape(-1),
                        values[name].reshape(-1),
                        err_msg=f"{name} on {config.name}, {type(backend).__name__}",
                    )
    return partition


def compare(found: Array, expected: Array, step: float, name: str, fewest: int = FEWEST_VALUES) -> None:
    """Assert the contract; step: of the output's quantization; fewest: different values that are expected."""
    assert found.dtype == expected.dtype, name
    distances = np.abs(found.astype(np.float64) - expected.astype(np.float64)) / step
    assert len(np.unique(expected)) >= fewest, f"{name} has only the values {np.unique(expected)}"
    assert distances.max() < 1.01, f"{name}: {distances.max():.2f} steps apart"
    equal = float((distances < 0.01).mean())
    assert equal >= EQUAL, f"{name}: only {100 * equal:.2f} % of {distances.size} values are equal"


def batch(images: Sequence[Image]) -> Image:
    """Images as a program takes them: one behind the other in place of a batch of 1."""
    return {
        name: np.concatenate([image[name] for image in images])
        if first.shape[:1] == (1,)
        else np.stack([image[name] for image in images])
        for name, first in images[0].items()
    }

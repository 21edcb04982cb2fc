# SPDX-License-Identifier: Apache-2.0
"""Every condition keeps an operator that violates it on the host, with its sentence; the page lists them all."""

from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from loomwork.compiler.constraints import Constraint, constraint, violation
from loomwork.compiler.graph import CompileError, HostPart
from loomwork.compiler.importers import tflite_constraints as needs
from loomwork.compiler.importers.tflite import import_tflite
from loomwork.compiler.importers.tflite_model import Operator
from loomwork.compiler.importers.tflite_operators import RULES, operators_page
from loomwork.compiler.limits import largest
from loomwork.compiler.tflite_file import Tensor
from loomwork.compiler.tflite_writer import ModelBuilder
from tests.models import CHECKOUT
from tests.oracle import Oracle, OracleError

RNG = np.random.default_rng(13)
PAGE = CHECKOUT / "docs" / "reference" / "operators.md"


def int8(*shape: int) -> np.ndarray:
    return RNG.integers(-128, 128, shape, dtype=np.int8)


def image(m: ModelBuilder, *shape: int, zero_point: int = 3) -> Tensor:
    """A tensor that the accelerator computes, so that there always is an operator for it."""
    return m.relu(m.input("x", shape, scale=0.05, zero_point=zero_point), scale=0.04)


def computed_weights(m: ModelBuilder) -> Tensor:
    w = m.input("w", (4, 1, 1, 3), scale=0.1)
    weights = m.mul(w, w, scale=0.1)
    options = schema.Conv2DOptionsT(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    return m.operator("CONV_2D", [image(m, 1, 4, 4, 3), weights], (1, 4, 4, 4), options, scale=0.1)


def constant_operand(m: ModelBuilder) -> Tensor:
    x = image(m, 1, 4, 4, 3)
    return m.add(x, m.constant("c", int8(1, 4, 4, 3), scale=0.1))


def pad_with(m: ModelBuilder, value: np.ndarray, pads: np.ndarray) -> Tensor:
    x = image(m, 1, 4, 4, 3)
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
    constant = m.constant("value", value, scale=x.scale, zero_point=x.zero_point)
    return m.operator("PADV2", [x, m.constant("pads", pads), constant], shape, schema.PadV2OptionsT())


def overflowing_bias(m: ModelBuilder) -> Tensor:
    bias, weights = np.array([2**31 - 3], np.int32), np.full((1, 1, 1, 3), -100, np.int8)
    return m.conv_2d(image(m, 1, 4, 4, 3), weights, bias, weight_scale=1e-6, scale=0.1)


SPATIAL = np.array([(0, 0), (1, 1), (1, 1), (0, 0)], np.int32)
VIOLATIONS: dict[str, tuple[Constraint[Operator], Callable[[ModelBuilder], Tensor]]] = {
    "float": (needs.int8_activations, lambda m: m.relu(m.dequantize(image(m, 1, 4, 4, 3)))),
    "constant": (needs.computed_inputs, constant_operand),
    "batch": (needs.one_image, lambda m: m.max_pool_2d(m.reshape(image(m, 1, 4, 4, 2), (2, 4, 4, 1)), 2)),
    "rank": (needs.one_image, lambda m: m.relu(m.reshape(image(m, 1, 4, 4, 2), (1, 1, 4, 4, 2)))),
    "rows": (needs.image_fits, lambda m: m.max_pool_2d(m.reshape(image(m, 1, 4, 4, 4096), (1, 65536, 1, 1)), 1)),
    "row bytes": (
        needs.image_fits,
        lambda m: m.max_pool_2d(m.reshape(image(m, 1, 4, 1024, 4096), (1, 1, 1 << 24, 1)), 1),
    ),
    "weights": (needs.constant_weights, computed_weights),
    "asymmetric weights": (
        needs.symmetric_weights,
        lambda m: m.fully_connected(image(m, 1, 8), int8(4, 8), weight_scale=0.1, weight_zero_point=2, scale=0.1),
    ),
    "large rescaling": (
        needs.rescaling_fits,
        lambda m: m.conv_2d(image(m, 1, 4, 4, 3), int8(4, 1, 1, 3), weight_scale=321.0, scale=0.1),
    ),
    "large requantization": (needs.same_rescaling, lambda m: m.quantize(image(m, 1, 4), scale=0.04 / 128)),
    "bias": (needs.bias_fits, overflowing_bias),
    "stride": (
        needs.convolution_stride,
        lambda m: m.conv_2d(image(m, 1, 20, 4, 3), int8(4, 1, 1, 3), weight_scale=0.1, scale=0.1, stride=(16, 1)),
    ),
    "stride in bytes": (
        needs.convolution_stride,
        lambda m: m.conv_2d(image(m, 1, 1, 3, 8000), int8(1, 1, 1, 8000), weight_scale=0.1, scale=0.1, stride=(1, 2)),
    ),
    "kernel height": (
        needs.convolution_kernel,
        lambda m: m.conv_2d(image(m, 1, 260, 1, 1), int8(1, 256, 1, 1), weight_scale=0.1, scale=0.1, padding="VALID"),
    ),
    "taps": (
        needs.convolution_kernel,
        lambda m: m.depthwise_conv_2d(image(m, 1, 1, 70, 2), int8(1, 1, 64, 2), weight_scale=0.1, scale=0.1),
    ),
    "dilation": (
        needs.convolution_kernel,
        lambda m: m.conv_2d(image(m, 1, 4, 4, 1), int8(1, 2, 1, 1), weight_scale=0.1, scale=0.1, dilation=(64, 1)),
    ),
    "groups": (
        needs.groups_fit,
        lambda m: m.operator(
            "CONV_2D",
            [image(m, 1, 1, 1, 8192), m.constant("w", int8(4096, 1, 1, 2), scale=0.1)],
            (1, 1, 1, 4096),
            schema.Conv2DOptionsT(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1),
            scale=1.0,
        ),
    ),
    "cut rows": (
        needs.fully_connected_rows,
        lambda m: m.fully_connected(image(m, 1, 4, 6), int8(3, 8), weight_scale=0.1, scale=0.1),
    ),
    "broadcast": (needs.same_shapes, lambda m: m.add(image(m, 1, 4, 4, 3), m.input("b", (1, 1, 1, 3), scale=0.1))),
    "pool window": (needs.pool_window, lambda m: m.max_pool_2d(image(m, 1, 256, 1, 1), (256, 1))),
    "pool stride": (needs.pool_window, lambda m: m.max_pool_2d(image(m, 1, 1, 40, 1), 1, stride=(1, 16))),
    "pool channels": (needs.pool_window, lambda m: m.max_pool_2d(image(m, 1, 1, 2, 8192), (1, 2))),
    "mean axes": (needs.global_mean, lambda m: m.mean(image(m, 1, 4, 4, 3), (1, 3), scale=0.03)),
    "mean size": (needs.global_mean, lambda m: m.mean(image(m, 1, 256, 2, 1), (1, 2), scale=0.03)),
    "mean rescaling": (needs.mean_rescaling, lambda m: m.mean(image(m, 1, 1, 1, 3), (1, 2), scale=0.04 / 128)),
    "padded channels": (needs.image_padding, lambda m: m.pad(image(m, 1, 4, 4, 3), [(0, 0), (0, 0), (0, 0), (1, 0)])),
    "padding value": (needs.zero_padding, lambda m: pad_with(m, np.array([7], np.int8), SPATIAL)),
    "padding scale": (
        needs.same_quantization,
        lambda m: m.pad(image(m, 1, 4, 4, 3), [(0, 0), (1, 1), (1, 1), (0, 0)], scale=0.5),
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_the_reason_on_the_host(name: str):
    condition, make = VIOLATIONS[name]
    m = ModelBuilder()
    m.output(make(m))
    model = m.build()
    partition = import_tflite(model, "model")
    reasons = [reason for part in partition.parts if isinstance(part, HostPart) for _, reason in part.operators]
    expected = f"; the accelerator needs {condition.phrase}"
    assert [reason for reason in reasons if reason.endswith(expected)], reasons
    for part in partition.parts:
        if isinstance(part, HostPart):
            runs_in_tflite_micro(part.model)


def runs_in_tflite_micro(model: bytes) -> None:
    try:
        oracle = Oracle(model)
        oracle.run([np.zeros(shape, np.int8) for shape in oracle.input_shapes])
    except OracleError as error:
        pytest.fail(str(error))


ONLY_REFUSED = {needs.tabulated.phrase, needs.add_rescaling.phrase}
"""tflite-micro cannot execute these either: tests of the importer."""


def test_every_condition_is_tried():
    tried = {condition.phrase for condition, _ in VIOLATIONS.values()} | ONLY_REFUSED
    assert {condition.phrase for rule in RULES for condition in rule.constraints} == tried


def test_an_operator_just_within_the_limits_is_accelerated():
    m = ModelBuilder()
    x = image(m, 1, 31, 1, 8)
    y = m.conv_2d(x, int8(2, 1, 1, 8), weight_scale=318.0, scale=0.1, stride=(15, 1))
    y = m.max_pool_2d(y, (3, 1), stride=(15, 1))
    m.output(m.quantize(y, scale=y.scale[0] / 127.9))
    assert len(import_tflite(m.build(), "model").parts) == 1


def test_the_first_condition_that_fails_is_reported():
    even: Constraint[int] = Constraint("an even number", lambda n: f"{n} is odd" if n % 2 else None)

    @constraint("a small number")
    def small(n: int) -> str | None:
        return f"{n} is large" if n > 9 else None

    assert violation([even, small], 4) is None
    assert violation([even, small], 11) == "11 is odd; the accelerator needs an even number"
    assert violation([even, small], 12) == "12 is large; the accelerator needs a small number"


def test_limits_come_from_the_command_set():
    assert largest("CONVOLVE", "y_step") == 15
    assert largest("DRAIN", "pool_height") == 255


def test_nothing_accelerated_tells_the_reason():
    m = ModelBuilder()
    m.output(m.conv_2d(m.input("x", (1, 4, 4, 3), dtype="float32"), np.ones((1, 1, 1, 3), np.float32)))
    with pytest.raises(CompileError, match="tensor 'x' is float32; the accelerator needs int8 inputs and outputs"):
        import_tflite(m.build(), "model")


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == operators_page(), (
        "out of date; run python -m loomwork.compiler.importers.tflite_operators > docs/reference/operators.md"
    )


def test_the_page_lists_every_rule_and_condition():
    page = operators_page()
    for rule in RULES:
        assert f"### {rule.code}\n" in page
        for condition in rule.constraints:
            assert f"- {condition.phrase}\n" in page

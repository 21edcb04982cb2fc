# SPDX-License-Identifier: Apache-2.0
"""PRelu with a slope for each channel."""

from dataclasses import replace

import numpy as np

from loomwork.compiler.graph import FeatureMap, Requantize, Rescale
from loomwork.compiler.importers.onnx_arithmetic import quantization, rescaling, result_quantization, taken_over
from loomwork.compiler.importers.onnx_forms import MisfitError
from loomwork.compiler.importers.onnx_layers import sum_of
from loomwork.compiler.importers.onnx_sight import Built, Sight
from loomwork.compiler.importers.onnx_units import Unit
from loomwork.compiler.importers.onnx_weighted import channel_factors, signed_channels


def slopes(unit: Unit, sight: Sight) -> Built:
    """Numbers below zero scaled by a depthwise convolution, those above by a rescaling, and the sum of both.

    One of the two is zero everywhere: nothing is rounded twice.
    """
    constant = unit.constant(1)
    if constant is None:
        raise MisfitError("its slopes are computed")
    source, output, name = sight.inputs[0], sight.output, unit.name
    zero, rule = quantization(unit.read[0]).zero_point, result_quantization(unit)
    below = replace(output, name=f"{output.name}/below", zero_point=zero)
    scaled, above = (replace(output, name=f"{output.name}/{part}") for part in ("scaled", "above"))
    # The bounds of the whole are those of the sum: the parts must be able to be zero.
    free = replace(unit, low=-np.inf, high=np.inf)
    rest = replace(sight, inputs=(below,), output=scaled)
    lowered = signed_channels(free, rest, channel_factors(unit, constant, 0))
    raised = replace(rescaling(free), minimum=rule.zero_point)
    return Built(
        layers=(
            _rescaled(unit, "below", source, below, taken_over(maximum=zero)),
            replace(lowered, name=f"{name}/scaled"),
            _rescaled(unit, "above", source, above, raised),
            # Of two maps with the result's own scale: its factors are powers of two, and round nothing.
            sum_of(unit, output, (scaled, rule.scale), (above, rule.scale)),
        ),
        maps=(below, scaled, above),
    )


def _rescaled(unit: Unit, part: str, source: FeatureMap, result: FeatureMap, rule: Requantize) -> Rescale:
    return Rescale(
        name=f"{unit.name}/{part}", operator=unit.node.op, input=source.name, output=result.name, requantize=rule
    )

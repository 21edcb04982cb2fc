# SPDX-License-Identifier: Apache-2.0
"""Operators that are functions of one int8 value, as tables: tflite-micro computes all 256 results."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tflite_micro.python.tflite_micro import runtime

from loomwork.arch.numerics import INT8_MAX, INT8_MIN
from loomwork.compiler.importers.tflite_cut import Cut
from loomwork.compiler.importers.tflite_model import Operator
from loomwork.compiler.importers.tflite_shapes import operand

_VALUES = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int8).reshape(1, -1)


class RefusedError(ValueError):
    """tflite-micro does not execute the operator; the message is its own."""


def tabulate(operator: Operator) -> NDArray[np.int8]:
    """What tflite-micro makes of each int8 value, from -128 on.

    The operator, int8 to int8, becomes a model of its own, as for the host; only its shape is another one.
    Raises RefusedError.
    """
    source, result = (replace(tensor, shape=_VALUES.shape) for tensor in (operand(operator, 0), operator.outputs[0]))
    cut = Cut(available=lambda tensor: tensor is source, source=lambda tensor: tensor)
    cut.add(replace(operator, inputs=(source,), outputs=(result,)))
    try:
        interpreter = runtime.Interpreter.from_bytes(cut.build([result]))
        interpreter.set_input(_VALUES, 0)
        interpreter.invoke()
    except Exception as error:  # the binding raises what it likes
        raise RefusedError(str(error)) from error
    return np.array(interpreter.get_output(0), np.int8).ravel()

# SPDX-License-Identifier: Apache-2.0
"""Whole networks on a compact core of 4 x 4: what tflite-micro computes, in so many cycles (docs/compact-core.md).

The memory is larger than a board's, so that all of them fit.
"""

from functools import cache
from typing import cast

import numpy as np
import pytest

from loomwork.compiler.driver import compile_model
from loomwork.fpga import board_backend
from loomwork.fpga.board_backend import BoardBackend
from loomwork.fpga.boards.catalog import ICEBREAKER
from loomwork.fpga.host_link import HostLink
from loomwork.sim.backend import run_program
from tests.models import CHECKOUT, model_path
from tests.oracle import Oracle
from tests.rtl.compact.core import DirectLink

MEMORY_BYTES = 1 << 20
DIGITS = "digits_int8.tflite"
CYCLES = {
    DIGITS: 379_608,
    "mlperf_tiny/kws_dscnn_int8.tflite": 8_050_670,
    "mlperf_tiny/ad_autoencoder_int8.tflite": 2_429_812,
    "mlperf_tiny/ic_resnet8_int8.tflite": 15_639_632,
    "mlperf_tiny/vww_mbv1_025_int8.tflite": 18_333_469,
    "tflite/micro_speech_quantized.tflite": 854_550,
}


@cache
def link() -> DirectLink:
    return DirectLink(ICEBREAKER.config, MEMORY_BYTES)


@pytest.mark.parametrize("name", CYCLES)
def test_a_network_computes_what_tflite_micro_does_in_as_many_cycles_as_recorded(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(board_backend.time, "sleep", lambda _: None)
    path = CHECKOUT / "examples/digits" / name if name == DIGITS else model_path(name)
    program = compile_model(path, ICEBREAKER.config, name="network")
    (shape,) = [tensor.image_shape for tensor in program.tensors if tensor.name == program.inputs[0]]
    image = np.random.default_rng(1).integers(-128, 128, (1, *shape), dtype=np.int8)
    oracle = Oracle(path)
    (expected,) = oracle.run_batch([image.reshape(1, *oracle.input_shapes[0])])
    result = run_program(program, {program.inputs[0]: image}, BoardBackend(cast("HostLink", link())))
    assert np.array_equal(result.outputs[program.outputs[0]].ravel(), expected.ravel())
    assert result.cycles_per_image == [CYCLES[name]]

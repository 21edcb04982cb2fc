# SPDX-License-Identifier: Apache-2.0
"""The oracle says what tflite-micro refuses, and why."""

import numpy as np
import pytest

from loomwork.compiler.tflite_writer import ModelBuilder
from tests.oracle import Oracle, OracleError, run_tflite_micro


def doubler() -> bytes:
    m = ModelBuilder()
    x = m.input("x", (1, 4), scale=1.0)
    m.output(m.add(m.relu(x), m.relu(x), scale=1.0))
    return m.build()


def test_a_model_runs_again_and_again():
    oracle = Oracle(doubler())
    assert (oracle.input_shapes, oracle.input_dtypes) == ([(1, 4)], [np.dtype(np.int8)])
    batch = np.arange(-20, 20, dtype=np.int8).reshape(10, 1, 4)
    (together,) = oracle.run_batch([batch])
    assert np.array_equal(together, 2 * batch.clip(0))
    assert np.array_equal(oracle.run([batch[7]])[0], together[7])


def test_a_model_is_read_from_its_path(tmp_path):
    path = tmp_path / "doubler.tflite"
    path.write_bytes(doubler())
    (result,) = run_tflite_micro(path, [np.array([[1, 2, 3, 100]], np.int8)])
    assert result.tolist() == [[2, 4, 6, 127]]


def test_inner_tensors_are_kept_on_request():
    oracle = Oracle(doubler(), keep_tensors=True)
    oracle.run([np.array([[-5, 1, 2, 3]], np.int8)])
    assert [oracle.tensor(i).tolist() for i in range(2)] == [[[-5, 1, 2, 3]], [[0, 1, 2, 3]]]
    with pytest.raises(OracleError, match="expected a tensor index below 4, got 4"):
        oracle.tensor(4)
    with pytest.raises(OracleError, match="not kept"):
        Oracle(doubler()).tensor(0)


@pytest.mark.parametrize("data", [b"", b"no flatbuffer at all", doubler()[:60]])
def test_what_is_no_model_is_refused(data):
    with pytest.raises(OracleError, match="tflite-micro cannot load the model"):
        Oracle(data)


def test_the_interpreters_words_are_in_the_error(capfd):
    m = ModelBuilder()
    m.output(m.operator("ATAN2", [m.input("x", (1, 4), scale=1.0)], (1, 4)))
    with pytest.raises(OracleError, match="Didn't find op for builtin opcode 'ATAN2'"):
        Oracle(m.build())
    assert capfd.readouterr().err == ""


def test_wrong_inputs_are_refused():
    oracle = Oracle(doubler())
    with pytest.raises(OracleError, match="expected 1 inputs, got 2"):
        oracle.run([np.zeros((1, 4), np.int8)] * 2)
    with pytest.raises(OracleError, match="Got 5 but expected 4 for dimension 1 of input 0"):
        oracle.run([np.zeros((1, 5), np.int8)])
    with pytest.raises(OracleError, match="Got value of type FLOAT32 but expected type INT8"):
        oracle.run([np.zeros((1, 4), np.float32)])
    with pytest.raises(
        OracleError, match=r"expected arrays \[n, \*shape\] for inputs of shapes \[\(1, 4\)\], got \[\]"
    ):
        oracle.run_batch([])

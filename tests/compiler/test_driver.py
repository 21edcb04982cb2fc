# SPDX-License-Identifier: Apache-2.0
"""Graphs and models through the whole compiler and the golden model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.config import BASE, LARGE, MID, NANO, SMALL, TINY, Config
from loomwork.arch.program import AcceleratorStep, HostStep, Program
from loomwork.compiler.driver import compile_graph, compile_model
from loomwork.compiler.graph import CompileError
from loomwork.sim.backend import run_program
from loomwork.sim.golden import GoldenBackend
from tests.compiler.execution import check
from tests.compiler.random_graphs import GraphMaker, random_graph
from tests.layers import GRAPHS, LAYERS, random_case
from tests.models import model_path
from tests.oracle import Oracle

ODD = Config(
    name="odd", rows=8, cols=4, scratchpad_kib=64, accumulator_depth=16, bus_bytes=4, requant_lanes=1, stream_beats=32
)
FORMAL_SHAPE = Config(
    name="formal_shape", rows=2, cols=2, scratchpad_kib=128, accumulator_depth=16, bus_bytes=2, requant_lanes=2
)
CONFIGS = (FORMAL_SHAPE, NANO, SMALL, MID, BASE, LARGE, ODD)
"""With enough scratchpad for the random graphs; the small ones differ from these in nothing else."""


REFUSED = {(2, "float_edges"), (2, "quantize")}
"""Random models with a rescaling beyond what the hardware can do."""


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(25))
def test_random_graphs_are_exact(seed: int, config: Config) -> None:
    maker = random_graph(seed, layers=6)
    check(maker, maker.graph(list(maker.maps)[-1]), config)


@pytest.mark.parametrize("config", [NANO, BASE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(40, 60))
def test_products_are_exact(seed: int, config: Config) -> None:
    maker = random_graph(seed, layers=8, products=True)
    check(maker, maker.graph(list(maker.maps)[-1]), config)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("seed", range(25, 40))
def test_fusion_changes_no_bit(seed: int, products: bool) -> None:
    maker = random_graph(seed, layers=6, products=products)
    graph = maker.graph(list(maker.maps)[-1], list(maker.maps)[2])
    check(maker, graph, SMALL, fuse=True)
    check(maker, graph, SMALL, fuse=False)


def test_several_inputs() -> None:
    maker = GraphMaker(0)
    first, second = maker.input(6, 5, 3), maker.input(6, 5, 3)
    total = maker.add(maker.convolution(first, 3, pad=(1, 1)), second)
    check(maker, maker.graph(total, maker.rescale(second)), SMALL)


def test_a_configuration_of_one_kibibyte_runs_a_small_layer() -> None:
    config = Config.from_dict({**FORMAL_SHAPE.to_dict(), "scratchpad_kib": 1})
    maker = GraphMaker(0)
    check(maker, maker.graph(maker.convolution(maker.input(5, 5, 4), 3, pad=(1, 1))), config)


@pytest.mark.parametrize("kind", sorted((LAYERS | GRAPHS).keys() - {"softmax", "reshape"}))
@pytest.mark.parametrize("seed", range(6))
def test_random_models_equal_tflite_micro(seed: int, kind: str) -> None:
    case = random_case(seed, kind)
    if (seed, kind) in REFUSED:
        with pytest.raises(CompileError, match="the accelerator needs rescaling by less than 128"):
            compile_model(case.model_bytes, MID, name=case.name)
        return
    program = compile_model(case.model_bytes, MID, name=case.name)
    assert_equals_tflite_micro(program, case.model_bytes, [np.stack([value]) for value in case.inputs])


@pytest.mark.parametrize("config", [SMALL, MID, BASE], ids=lambda config: config.name)
@pytest.mark.parametrize(
    "name",
    [
        "mlperf_tiny/ic_resnet8_int8",
        "mlperf_tiny/kws_dscnn_int8",
        "mlperf_tiny/vww_mbv1_025_int8",
        "mlperf_tiny/ad_autoencoder_int8",
        "tflite/micro_speech_quantized",
    ],
)
def test_networks_equal_tflite_micro(name: str, config: Config) -> None:
    model = model_path(f"{name}.tflite").read_bytes()
    program = compile_model(model, config)
    tensor = next(tensor for tensor in program.tensors if tensor.name == program.inputs[0])
    info = np.iinfo(tensor.dtype)
    images = np.random.default_rng(1).integers(info.min, info.max + 1, (4, *tensor.shape)).astype(tensor.dtype)
    assert_equals_tflite_micro(program, model, [images])


def assert_equals_tflite_micro(program: Program, model: bytes, inputs: list[np.ndarray]) -> None:
    """inputs: `[images, *shape of the tensor]` each."""
    oracle = Oracle(model)
    for image in range(len(inputs[0])):
        values = [value[image] for value in inputs]
        outputs = run_program(program, dict(zip(program.inputs, values, strict=True)), GoldenBackend()).outputs
        for name, expected in zip(program.outputs, oracle.run(values), strict=True):
            np.testing.assert_array_equal(outputs[name].ravel(), expected.ravel(), err_msg=name)


def test_the_same_model_gives_the_same_program_in_another_process() -> None:
    """Byte for byte, whatever the order in which Python's sets and dictionaries come."""
    code = (
        "import hashlib\n"
        "from tests.layers import random_case\n"
        "from loomwork.arch.config import SMALL\n"
        "from loomwork.arch.program_file import write_program\n"
        "from loomwork.compiler.driver import compile_model\n"
        "data = random_case(3, 'conv_add_residual').model_bytes\n"
        "print(hashlib.sha256(write_program(compile_model(data, SMALL))).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
    }
    assert len(digests) == 1


def test_host_operators_become_host_steps_with_their_reason() -> None:
    program = compile_model(random_case(1, "conv_mean_fully_connected_softmax").model_bytes, SMALL, name="net")
    assert [type(step) for step in program.steps] == [AcceleratorStep, HostStep]
    hosts = [layer for layer in program.report["layers"] if layer["where"] == "host"]
    assert [layer["operator"].split()[0] for layer in hosts] == ["SOFTMAX"]
    assert hosts[0]["reason"]


def test_what_the_configuration_cannot_express_goes_to_the_host() -> None:
    config = Config.from_dict({**SMALL.to_dict(), "residual_add": False})
    case = random_case(1, "conv_add_residual")
    program = compile_model(case.model_bytes, config, name="net")
    hosts = [layer for layer in program.report["layers"] if layer["where"] == "host"]
    assert [layer["reason"] for layer in hosts] == ["configuration small leaves it out (residual_add)"]
    assert_equals_tflite_micro(program, case.model_bytes, [np.stack([value]) for value in case.inputs])


def test_progress_is_told() -> None:
    told: list[str] = []
    compile_model(random_case(1, "conv_2d").model_bytes, SMALL, progress=told.append)
    assert told == ["reading the model", "compiling part 1 of 1"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"cannot read the model .*none.tflite: No such file"):
        compile_model(tmp_path / "none.tflite", TINY)


def test_a_model_that_does_not_fit_is_refused() -> None:
    maker = GraphMaker(0)
    with pytest.raises(
        CompileError, match=r"layer 'layer0' .* one row of its output needs .* configuration tiny has 16"
    ):
        compile_graph(maker.graph(maker.dense(maker.input(60, 40, 8), 3)), TINY)

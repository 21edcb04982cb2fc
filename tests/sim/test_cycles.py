# SPDX-License-Identifier: Apache-2.0
"""The cycle model against the RTL in Verilator, and by hand."""

import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.config import PRESETS, TINY, Config
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, IsaError, Source
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.compiler.driver import compile_model
from loomwork.compiler.graph import CompileError
from loomwork.fpga.boards.catalog import ULX3S_85F
from loomwork.sim.backend import Array, RunError, StepStatistics, run_program
from loomwork.sim.cycles import Prediction, layer_cycles, predict, predict_program, with_predicted_cycles
from loomwork.sim.memory import MemoryTiming
from loomwork.sim.verilator import VerilatorBackend
from tests.layers import GRAPHS, LAYERS, random_case
from tests.models import model_path
from tests.programs import copy_program, copy_step

NETWORKS = {
    "resnet8": "mlperf_tiny/ic_resnet8_int8.tflite",
    "ds_cnn": "mlperf_tiny/kws_dscnn_int8.tflite",
    "vww": "mlperf_tiny/vww_mbv1_025_int8.tflite",
    "autoencoder": "mlperf_tiny/ad_autoencoder_int8.tflite",
    "micro_speech": "tflite/micro_speech_quantized.tflite",
}
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits_int8.tflite"
TOLERANCE = 0.02
"""Of the cycles of a network: the promise. What the model leaves out comes to far less."""
LATENCIES = (0, 40, 100)


@cache
def compiled(model: Path, config_name: str) -> Program:
    return compile_model(model, PRESETS[config_name])


@cache
def rtl(latency: int) -> VerilatorBackend:
    return VerilatorBackend(timing=MemoryTiming(latency=latency), trace=True)


def random_inputs(program: Program) -> dict[str, Array]:
    """One image. Cycles do not depend on values."""
    generator = np.random.default_rng(1)
    tensors = {tensor.name: tensor for tensor in program.tensors}
    return {
        name: generator.integers(-128, 127, (1, *tensors[name].image_shape), endpoint=True).astype(np.int8)
        for name in program.inputs
    }


def measured(program: Program, inputs: dict[str, Array], latency: int = 40) -> list[StepStatistics]:
    """What each accelerator step takes on the RTL."""
    (image,) = run_program(program, inputs, rtl(latency)).statistics
    return list(image)


def assert_equal_but_for(tolerance: float, prediction: Prediction, run: StepStatistics, what: str = "") -> None:
    cycles = run.counters["cycles"]
    assert abs(prediction.cycles - cycles) <= tolerance * cycles, f"{what}: {prediction.cycles}, RTL {cycles}"


@pytest.mark.parametrize("config_name", ["small", "base"])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_take_as_many_cycles_as_predicted(network: str, config_name: str) -> None:
    program = compiled(model_path(NETWORKS[network]), config_name)
    runs = measured(program, random_inputs(program))
    for prediction, run in zip(predict_program(program), runs, strict=True):
        assert_equal_but_for(TOLERANCE, prediction, run)
        # What can be counted is not subject to any timing.
        for counter in ("array_active", "read_beats", "write_beats"):
            assert prediction.counters[counter] == run.counters[counter]
    for estimate, run in zip(predict_program(program, exact=False), runs, strict=True):
        assert_equal_but_for(TOLERANCE, estimate, run, "estimate")


# The ULX3S fetches a command in two beats, so that its decoder counts.
@pytest.mark.parametrize(
    "config", [TINY, replace(TINY, name="late", deep_pipeline=True), ULX3S_85F.config], ids=lambda c: c.name
)
@pytest.mark.parametrize("latency", LATENCIES)
def test_every_command_of_digits_begins_and_ends_as_predicted(latency: int, config: Config) -> None:
    program = compile_model(DIGITS, config)
    (run,) = measured(program, random_inputs(program), latency)
    (prediction,) = predict_program(program, MemoryTiming(latency=latency))
    assert prediction.counters == run.counters
    assert sorted(prediction.events, key=str) == sorted(run.events, key=str)


@pytest.mark.parametrize("config_name", ["small", "base"])
def test_what_waits_for_banks_and_for_queues_is_predicted(config_name: str) -> None:
    # The drain reads the operands of ADD while the feed reads the next tile; commands come faster than they are done.
    program = compiled(model_path(NETWORKS["resnet8"]), config_name)
    (run,) = measured(program, random_inputs(program))
    (prediction,) = predict_program(program)
    for counter in ("drain_wait_bank", "fetch_wait_queue"):
        assert run.counters[counter] > 100
        assert prediction.counters[counter] == run.counters[counter]


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("network", ["ds_cnn", "autoencoder"])
def test_the_latency_of_memory_counts(network: str, latency: int) -> None:
    program = compiled(model_path(NETWORKS[network]), "base")
    runs = measured(program, random_inputs(program), latency)
    for prediction, run in zip(predict_program(program, MemoryTiming(latency=latency)), runs, strict=True):
        assert_equal_but_for(TOLERANCE, prediction, run)


@pytest.mark.parametrize("config_name", ["tiny", "small"])
@pytest.mark.parametrize("kind", LAYERS | GRAPHS)
def test_random_layers_take_as_many_cycles_as_predicted(kind: str, config_name: str) -> None:
    # Programs of a few hundred cycles, in which a cycle more or less is already much: within 5 percent.
    steps = 0
    for seed in range(4):
        case = random_case(seed, kind)
        try:
            program = compile_model(case.model_bytes, PRESETS[config_name], name=case.name)
        except CompileError:
            continue
        runs = measured(program, dict(zip(program.inputs, case.inputs, strict=True)))
        for prediction, run in zip(predict_program(program), runs, strict=True):
            assert_equal_but_for(0.05, prediction, run, case.name)
            steps += 1
    if kind not in ("reshape", "softmax"):  # nothing of these is executed by the accelerator
        assert steps > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_a_prediction_takes_less_than_a_second(network: str) -> None:
    program = compiled(model_path(NETWORKS[network]), "base")
    began = time.process_time()
    predictions = predict_program(program)
    assert time.process_time() - began < 1
    # And is always the same.
    assert predictions == predict_program(program)


def test_a_copy_takes_what_its_parts_take() -> None:
    """`tiny` has 4 bytes per beat, so that a command is 8 beats, and words of one beat; memory answers after 40."""
    latency, beats, words = 40, 8, 6
    # start, window check (2) and splitter; address; latency; to the reader; through its queue (2).
    first_beat = 3 + 1 + latency + 1 + 2
    load = first_beat + beats - 1 + 1 + 2  # decoder, queue of the unit (2)
    # Rows, check, splitter, address and latency again; the burst begins, for it is aligned, where the rows do.
    first_word = load + 1 + 2 + 1 + 1 + latency + 1 + 2
    (prediction,) = predict_program(copy_program())
    events = {event.unit: event for event in prediction.events}
    assert events["LOAD"].start == load
    # Fetch has read the whole program ahead: 24 beats, and the bus gives them first.
    behind_fetch = 3 + 1 + latency + 3 * beats + 1 + 2
    written = max(first_word, behind_fetch) + words - 1
    assert events["LOAD"].end == written + 1
    assert events["STORE"].start == written + 2
    assert prediction.counters["read_beats"] == 3 * beats + words
    assert prediction.counters["write_beats"] == words


def test_a_program_that_never_ends_is_refused() -> None:
    drain = Command("DRAIN", {item.name: item.low for item in BY_MNEMONIC["DRAIN"].operands})
    assert drain["source"] == Source.ACCUMULATOR  # and nothing fills them
    commands = b"".join(map(encode, (drain, Command("END"))))
    with pytest.raises(RunError, match=r"the program never ends: command 0 \(DRAIN\) is never finished"):
        predict(AcceleratorStep(commands=commands, constants=b"", inputs=(), outputs=()), TINY)


def test_what_is_no_program_is_refused() -> None:
    step = copy_step()
    with pytest.raises(IsaError, match="a program must end with END"):
        predict(
            AcceleratorStep(commands=step.commands[: 2 * COMMAND_BYTES], constants=b"", inputs=(), outputs=()), TINY
        )
    with pytest.raises(IsaError, match="command at byte 0: opcode 15 is not one"):
        predict(AcceleratorStep(commands=b"\xff" + step.commands[1:], constants=b"", inputs=(), outputs=()), TINY)


def test_cycles_of_layers_add_up() -> None:
    program = with_predicted_cycles(compiled(DIGITS, "tiny"))
    (prediction,) = predict_program(program)
    own = [layer for layer in program.report["layers"] if layer["where"] == "accelerator"]
    assert len(own) > 1
    assert all(layer["predicted_cycles"] > 0 for layer in own)
    assert sum(layer["predicted_cycles"] for layer in own) == prediction.cycles
    assert program.report["totals"]["predicted_cycles"] == prediction.cycles
    assert all("predicted_cycles" not in layer for layer in program.report["layers"] if layer["where"] == "host")
    # The first layer ends with its last DRAIN.
    ends = {event.offset // COMMAND_BYTES: event.end for event in prediction.events if event.unit == "DRAIN"}
    assert own[0]["predicted_cycles"] == max(ends.get(number, 0) for number in own[0]["commands"])


def test_a_layer_that_is_done_before_the_one_in_front_takes_nothing() -> None:
    (prediction,) = predict_program(compiled(DIGITS, "tiny"))
    numbers = [event.offset // COMMAND_BYTES for event in prediction.events]
    assert layer_cycles([numbers, numbers[:1], numbers], prediction)[1] == 0


def test_a_program_without_report_stays_as_it_is() -> None:
    program = copy_program()
    assert with_predicted_cycles(program) is program

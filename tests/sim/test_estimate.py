# SPDX-License-Identifier: Apache-2.0
"""The estimate of large programs against the exact cycle model, which test_cycles.py compares with the RTL."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BASE, PRESETS, TINY
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, Unit
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.compiler.driver import compile_model
from loomwork.compiler.report import summary
from loomwork.compiler.tflite_writer import ModelBuilder
from loomwork.sim.backend import RunError
from loomwork.sim.cycles import Prediction, predict, predict_program, with_predicted_cycles
from loomwork.sim.cycles.commands import read_commands
from loomwork.sim.cycles.convolution import shape_of
from loomwork.sim.cycles.prediction import EXACT_PASSES
from loomwork.sim.cycles.timeline import Clock, Timeline
from loomwork.sim.memory import MemoryTiming
from tests.models import model_path

NETWORKS = {
    "resnet8": "mlperf_tiny/ic_resnet8_int8.tflite",
    "ds_cnn": "mlperf_tiny/kws_dscnn_int8.tflite",
    "vww": "mlperf_tiny/vww_mbv1_025_int8.tflite",
    "autoencoder": "mlperf_tiny/ad_autoencoder_int8.tflite",
}
MOBILENET = "tflite/tf2_mobilenet_v2_1.0_224_ptq.tflite"
MOBILENET_CYCLES = 1_424_423
"""What MobileNetV2 takes on the RTL of `base`, with a memory latency of 40 cycles."""
TOLERANCE = 0.02


@cache
def compiled(network: str, config_name: str) -> Program:
    return compile_model(model_path(network), PRESETS[config_name])


def total(predictions: Sequence[Prediction]) -> int:
    return sum(prediction.cycles for prediction in predictions)


def compare(program: Program, latency: int) -> tuple[list[Prediction], list[Prediction]]:
    """The exact predictions and the estimates of all steps, which must agree but for the tolerance in all."""
    timing = MemoryTiming(latency=latency)
    exact, estimates = (predict_program(program, timing, exact=choice) for choice in (True, False))
    assert all(prediction.exact for prediction in exact)
    assert not any(estimate.exact for estimate in estimates)
    assert abs(total(estimates) - total(exact)) <= TOLERANCE * total(exact)
    return exact, estimates


@pytest.mark.parametrize("latency", [0, 40])
@pytest.mark.parametrize("config_name", ["small", "mid", "base", "large"])
@pytest.mark.parametrize("network", NETWORKS)
def test_it_is_near_the_exact_model(network: str, config_name: str, latency: int) -> None:
    for prediction, estimate in zip(*compare(compiled(NETWORKS[network], config_name), latency), strict=True):
        # What can be counted is not subject to any timing.
        for counter in ("array_active", "read_beats", "write_beats"):
            assert estimate.counters[counter] == prediction.counters[counter]
        places = {(event.unit, event.offset) for event in prediction.events}
        assert {(event.unit, event.offset) for event in estimate.events} == places
        assert len(estimate.events) == len(places)
        assert all(0 < event.start < event.end <= estimate.cycles for event in estimate.events)


@pytest.mark.parametrize("latency", [100, 200])
@pytest.mark.parametrize("config_name", ["tiny", "base"])
def test_weights_wait_for_the_latency_of_memory(config_name: str, latency: int) -> None:
    # The array has one pixel per tile, so that it is as fast as its weights come through the queue.
    exact, _ = compare(compiled(NETWORKS["autoencoder"], config_name), latency)
    assert total(exact) > 1.05 * total(predict_program(compiled(NETWORKS["autoencoder"], config_name)))


@pytest.mark.parametrize("network", ["resnet8", "autoencoder"])
def test_tiles_of_more_beats_than_rows(network: str) -> None:
    config = replace(BASE, bus_bytes=4)
    compare(compile_model(model_path(NETWORKS[network]), config), 40)


def test_weights_wait_for_transfers() -> None:
    # Tiles of 32 beats for few pixels, while the next image rows are loaded.
    model = ModelBuilder()
    image = model.input("image", (1, 14, 14, 1024), scale=0.02, zero_point=0)
    kernel = np.ones((256, 1, 1, 1024), np.int8)
    model.output(model.conv_2d(image, kernel, weight_scale=0.01, scale=0.05, zero_point=0))
    compare(compile_model(model.build(), PRESETS["large"]), 40)


@pytest.mark.parametrize("latency", [40, 100])
@pytest.mark.parametrize("config_name", ["mid", "base", "large"])
def test_it_is_near_the_exact_model_for_a_large_network(config_name: str, latency: int) -> None:
    compare(compiled(MOBILENET, config_name), latency)


def test_a_large_network_is_estimated() -> None:
    program = with_predicted_cycles(compiled(MOBILENET, "base"))
    totals = program.report["totals"]
    assert not totals["predicted_exactly"]
    assert abs(totals["predicted_cycles"] - MOBILENET_CYCLES) <= TOLERANCE * MOBILENET_CYCLES
    layers = [layer["predicted_cycles"] for layer in program.report["layers"] if layer["where"] == "accelerator"]
    assert sum(layers) == totals["predicted_cycles"]
    assert f"about {totals['predicted_cycles']:,} in all" in rendered(program)


def test_a_small_network_is_predicted_exactly() -> None:
    program = with_predicted_cycles(compiled(NETWORKS["resnet8"], "base"))
    assert program.report["totals"]["predicted_exactly"]
    assert program.report["totals"]["predicted_cycles"] == total(predict_program(program, exact=True))
    assert "about" not in rendered(program)


def rendered(program: Program) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(program))
    return capture.get()


def test_the_work_is_that_of_commands_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted as what processes wait for, which is what takes the time; the exact model waits at each pass."""
    waits = 0
    wait, call = Timeline.wait, Clock.call

    def count_wait(*arguments) -> None:
        nonlocal waits
        waits += 1
        wait(*arguments)

    def count_call(*arguments) -> None:
        nonlocal waits
        waits += 1
        call(*arguments)

    program = compiled(MOBILENET, "mid")
    (step,) = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    commands = read_commands(step.commands)
    shapes = [shape_of(command, program.config) for command in commands if command.unit is Unit.EXECUTE]
    passes = sum(shape.blocks * len(shape.segments) for shape in shapes)
    work = len(commands) + sum(shape.blocks for shape in shapes)
    assert passes > max(EXACT_PASSES, 4 * work)
    monkeypatch.setattr(Timeline, "wait", count_wait)
    monkeypatch.setattr(Clock, "call", count_call)
    predict(step, program.config)
    assert work / 2 < waits < 4 * work


def test_streams_far_ahead_of_the_array_are_left_to_the_exact_model() -> None:
    tiles = 12
    tile = {"pitch": 1, "height": 1, "row_bytes": 4, "x_step": 4, "tap_count": 1, "kernel_rows": 1}
    commands = [Command("STREAM", with_defaults("STREAM", window=1, words=TINY.rows)) for _ in range(tiles)]
    commands += [
        command
        for _ in range(tiles)
        for command in (
            Command("CONVOLVE", with_defaults("CONVOLVE", length=4, **tile)),
            Command("DRAIN", with_defaults("DRAIN", in_pitch=1, out_base=8, out_pitch=1, channels=4)),
        )
    ]
    # The queue of the stream holds all of them.
    assert tiles * TINY.weight_tile_bytes < TINY.stream_beats * TINY.bus_bytes
    step = program_of([*commands, Command("END")])
    assert predict(step, TINY, exact=False) == predict(step, TINY)
    assert predict(step, TINY, exact=False).exact


def test_a_program_that_never_ends_is_refused() -> None:
    step = program_of([Command("DRAIN", with_defaults("DRAIN")), Command("END")])
    with pytest.raises(RunError, match=r"the program never ends: command 0 \(DRAIN\) is never finished"):
        predict(step, TINY, exact=False)


def with_defaults(mnemonic: str, **operands: int) -> dict[str, int]:
    """Operands of a command, those that are not given at their lowest value but for signed ones, at 0."""
    return {item.name: 0 if item.signed else item.low for item in BY_MNEMONIC[mnemonic].operands} | operands


def program_of(commands: Sequence[Command]) -> AcceleratorStep:
    data = b"".join(map(encode, commands))
    assert len(data) == len(commands) * COMMAND_BYTES
    return AcceleratorStep(commands=data, constants=b"", inputs=(), outputs=())

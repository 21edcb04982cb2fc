# SPDX-License-Identifier: Apache-2.0
"""The RTL as a backend: its library is built once, it agrees with other models, and its errors are the engine's."""

from dataclasses import replace

import numpy as np
import pytest

from loomwork.arch.command import Command, decode_program, encode
from loomwork.arch.config import TINY, Config
from loomwork.arch.isa import COMMAND_BYTES, Unit, Window
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.arch.registers import ErrorCode
from loomwork.compiler.driver import compile_model
from loomwork.sim import driver, verilator
from loomwork.sim.backend import RunError, run_program
from loomwork.sim.driver import EngineError
from loomwork.sim.golden import GoldenBackend
from loomwork.sim.library import build_library
from loomwork.sim.memory import MemoryTiming
from loomwork.sim.verilator import Engine, VerilatorBackend
from tests.oracle import run_tflite_micro
from tests.programs import copy_commands, copy_program, copy_step, network

CONFIG = TINY
IMAGES = np.random.default_rng(17).integers(-128, 128, (4, 6, 6, 3), dtype=np.int8)
STORE_OFFSET = COMMAND_BYTES
ROWS, WORDS = 3, 2


@pytest.fixture(scope="module")
def net() -> Program:
    return compile_model(network(), CONFIG, name="net")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(CONFIG, MemoryTiming())


def run_on(engine: Engine, commands: list[Command] | bytes, *, max_cycles: int = 1_000_000) -> np.ndarray:
    """Run commands on 24 bytes of input that count from 1; returns 24 bytes of output."""
    encoded = commands if isinstance(commands, bytes) else b"".join(map(encode, commands))
    outputs = np.zeros(24, np.uint8)
    step = replace(copy_step(CONFIG), commands=encoded)
    engine.run(step, np.arange(1, 25, dtype=np.uint8), outputs, trace=False, max_cycles=max_cycles)
    return outputs


def copy_with(**changes: int) -> list[Command]:
    """LOAD, STORE, END, with changed operands of the STORE."""
    load, store, end = copy_commands(CONFIG, ROWS, WORDS)
    return [load, replace(store, operands={**store.operands, **changes}), end]


# Who it is


def test_a_core_of_another_command_set_is_refused(monkeypatch: pytest.MonkeyPatch):
    actual = driver.isa_hash()
    monkeypatch.setattr(driver, "isa_hash", lambda: actual ^ 1)
    with pytest.raises(RunError, match=f"core's ISA_HASH is {actual:#010x}, the program needs {actual ^ 1:#010x}"):
        Engine(CONFIG, MemoryTiming())


def test_a_core_of_another_configuration_is_refused(monkeypatch: pytest.MonkeyPatch):
    library = build_library(CONFIG)
    monkeypatch.setattr(verilator, "build_library", lambda *_, **__: library)
    other = replace(CONFIG, queue_depth=8)
    low = (CONFIG.hash & 0xFFFF_FFFF, other.hash & 0xFFFF_FFFF)
    with pytest.raises(RunError, match=f"core's CONFIG_HASH_LOW is {low[0]:#010x}, the program needs {low[1]:#010x}"):
        Engine(other, MemoryTiming())


# What it computes


def test_a_network_computes_what_every_other_model_does(net: Program):
    inputs = {"image": IMAGES}
    result = run_program(net, inputs, VerilatorBackend())
    (name,) = net.outputs
    expected = np.concatenate([run_tflite_micro(network(), [image[np.newaxis]])[0] for image in IMAGES])
    assert np.array_equal(result.outputs[name], expected)
    assert np.array_equal(result.outputs[name], run_program(net, inputs, GoldenBackend()).outputs[name])
    assert len(np.unique(expected, axis=0)) > 1
    # No image's cycles depend on its values or on the images before it.
    assert len(set(result.cycles_per_image)) == 1


def test_a_batch_on_one_engine_is_what_separate_engines_compute(net: Program):
    (name,) = net.outputs
    together = run_program(net, {"image": IMAGES}, VerilatorBackend()).outputs[name]
    alone = [run_program(net, {"image": image}, VerilatorBackend()).outputs[name] for image in IMAGES]
    assert np.array_equal(together, np.concatenate(alone))


SLOWER = {
    "latency": (MemoryTiming(1), MemoryTiming(300)),
    **{f"stalls, seed {seed}": (MemoryTiming(8), MemoryTiming(8, 40, seed)) for seed in range(3)},
}


@pytest.mark.parametrize("case", SLOWER)
def test_the_memorys_timing_changes_cycles_and_no_output(case: str, net: Program):
    fast, slow = (run_program(net, {"image": IMAGES[:2]}, VerilatorBackend(timing=t)) for t in SLOWER[case])
    (name,) = net.outputs
    expected = run_program(net, {"image": IMAGES[:2]}, GoldenBackend()).outputs[name]
    assert np.array_equal(fast.outputs[name], expected)
    assert np.array_equal(slow.outputs[name], expected)
    assert slow.cycles_per_image[0] > fast.cycles_per_image[0]


def test_stalls_repeat_with_their_seed(net: Program):
    def cycles(seed: int) -> list[int]:
        return run_program(net, {"image": IMAGES}, VerilatorBackend(timing=MemoryTiming(8, 40, seed))).cycles_per_image

    assert cycles(1) == cycles(1)
    assert cycles(1) != cycles(2)


def test_backends_keep_one_engine_per_configuration(monkeypatch: pytest.MonkeyPatch):
    made: list[Config] = []

    class Counted(Engine):
        def __init__(self, config, timing, *, report=None):
            made.append(config)
            super().__init__(config, timing, report=report)

    monkeypatch.setattr(verilator, "Engine", Counted)
    backend = VerilatorBackend()
    image = np.zeros((20, 3, 5, 1), np.int8)
    for _ in range(2):
        run_program(copy_program(), {"x": image}, backend)
    assert made == [CONFIG]


def test_counters_count(engine: Engine, net: Program):
    result = run_program(net, {"image": IMAGES[:1]}, VerilatorBackend())
    (counters,) = [step.counters for step in result.statistics[0]]
    (step,) = [step for step in net.steps if isinstance(step, AcceleratorStep)]
    bus = CONFIG.bus_bytes
    commands = decode_program(step.commands)

    def moved(mnemonic: str) -> int:
        """Bytes that the transfers of a kind move, by the table's definition of their operands."""
        found = [command for command in commands if command.mnemonic == mnemonic]
        return sum(command["rows"] * command["words"] * CONFIG.rows for command in found)

    weights = sum(-(-c["words"] * CONFIG.cols // bus) for c in commands if c.mnemonic == "STREAM")
    assert counters["write_beats"] == moved("STORE") // bus
    # Fetch reads whole bursts and so may read commands behind END.
    least = moved("LOAD") // bus + weights + len(step.commands) // bus
    assert least <= counters["read_beats"] <= least + 64
    for name, value in counters.items():
        if name.endswith("_busy"):
            assert 0 < value < counters["cycles"], name


# The timeline


def test_every_command_is_on_the_timeline(net: Program):
    result = run_program(net, {"image": IMAGES[:2]}, VerilatorBackend(trace=True))
    (step,) = [step for step in net.steps if isinstance(step, AcceleratorStep)]
    commands = decode_program(step.commands)
    expected = [
        (command.insn.unit.name, index * COMMAND_BYTES)
        for index, command in enumerate(commands)
        if command.insn.unit is not Unit.CONTROL
    ]
    for (run,) in result.statistics:
        assert sorted((event.unit, event.offset) for event in run.events) == sorted(expected)
        assert run.cycles is not None
        for event in run.events:
            assert 0 <= event.start <= event.end <= run.cycles, event
        last: dict[str, tuple[int, int]] = {}
        for event in sorted(run.events, key=lambda event: (event.unit, event.offset)):
            start, end = last.get(event.unit, (-1, -1))
            assert event.start > start, "a unit takes its commands in order"
            assert event.end > end, "a unit finishes its commands in order"
            last[event.unit] = (event.start, event.end)


def test_a_wait_is_visible_on_the_timeline():
    result = run_program(copy_program(), {"x": np.zeros((1, 3, 5, 1), np.int8)}, VerilatorBackend(trace=True))
    load, store = result.statistics[0][0].events
    assert (load.unit, store.unit) == ("LOAD", "STORE")
    assert store.start >= load.end
    assert load.end - load.start >= MemoryTiming().latency


def test_no_timeline_unless_asked_for():
    result = run_program(copy_program(), {"x": np.zeros((1, 3, 5, 1), np.int8)}, VerilatorBackend())
    assert result.statistics[0][0].events == ()


# Errors


NEVER = Command("STORE", copy_with()[1].operands, {Unit.LOAD: 2})
BAD_COMMANDS = {
    "read-only window": (copy_with(window=Window.INPUTS), ErrorCode.WINDOW, STORE_OFFSET),
    "beyond its window": (copy_with(offset=4), ErrorCode.WINDOW, STORE_OFFSET),
    "not aligned": (copy_with(offset=1), ErrorCode.WINDOW, STORE_OFFSET),
    "beyond the scratchpad": (copy_with(base=CONFIG.bank_words), ErrorCode.SCRATCHPAD, STORE_OFFSET),
    "no such command": (b"\x0f" + bytes(31), ErrorCode.ILLEGAL_OPCODE, 0),
    "operand out of range": (
        b"".join(map(encode, copy_with()[:2])) + (1 | 1 << 200).to_bytes(32, "little"),
        ErrorCode.ILLEGAL_OPERAND,
        2 * COMMAND_BYTES,
    ),
    "never finishes": ([copy_with()[0], NEVER, copy_with()[2]], ErrorCode.WATCHDOG, STORE_OFFSET),
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_an_error_carries_code_and_offset_and_a_soft_reset_recovers(case: str, engine: Engine):
    commands, code, offset = BAD_COMMANDS[case]
    with pytest.raises(EngineError) as caught:
        run_on(engine, commands)
    assert (caught.value.code, caught.value.offset) == (code, offset)
    assert str(caught.value).startswith(f"the engine stopped with {code.name} at command byte {offset} (")
    assert run_on(engine, copy_with()).tolist() == list(range(1, 25))


def test_a_program_without_end_runs_into_the_end_of_its_window(engine: Engine):
    with pytest.raises(EngineError) as caught:
        run_on(engine, copy_with()[:2])
    assert (caught.value.code, caught.value.offset) == (ErrorCode.WINDOW, 2 * COMMAND_BYTES)
    assert "(not a command)" in str(caught.value)


def test_bus_errors_are_reported_and_survived(engine: Engine):
    contents = {
        Window.COMMANDS: np.frombuffer(b"".join(map(encode, copy_with())), np.uint8).copy(),
        Window.INPUTS: np.zeros(24, np.uint8),
        Window.OUTPUTS: np.zeros(24, np.uint8),
    }
    engine.map_windows(contents, response=2)
    engine.start()
    assert engine.wait(10_000)
    assert engine.read("ERROR_CODE") == ErrorCode.BUS_READ
    engine.reset()
    assert engine.read("STATUS") == 0
    assert run_on(engine, copy_with()).tolist() == list(range(1, 25))


def test_a_run_that_takes_too_long_is_given_up_and_survived(engine: Engine):
    with pytest.raises(RunError, match="the program did not end within 60 cycles"):
        run_on(engine, copy_with(), max_cycles=60)
    assert run_on(engine, copy_with()).tolist() == list(range(1, 25))


def test_an_error_in_one_image_stops_the_run_and_not_the_backend():
    backend = VerilatorBackend()
    bad = replace(copy_step(), commands=b"".join(map(encode, copy_with(window=Window.INPUTS))))
    image = np.ones((2, 3, 5, 1), np.int8)
    with pytest.raises(EngineError, match=r"stopped with WINDOW at command byte 32 \(STORE\)"):
        run_program(replace(copy_program(), steps=(bad,)), {"x": image}, backend)
    assert np.array_equal(run_program(copy_program(), {"x": image}, backend).outputs["y"], image)


def test_windows_that_the_bus_cannot_address_are_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "_config", replace(CONFIG, address_bits=24))
    with pytest.raises(
        RunError, match=r"windows do not fit below address 2\*\*24, which is all that 'tiny' can address"
    ):
        engine.map_windows({Window.INPUTS: np.zeros(1 << 24, np.uint8)})


def test_progress_is_told_in_cycles(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verilator, "PROGRESS_CYCLES", 40)
    told: list[int] = []
    image = np.arange(15, dtype=np.int8).reshape(3, 5, 1)
    result = run_program(copy_program(CONFIG), {"x": image}, VerilatorBackend(progress=told.append))
    (cycles,) = result.cycles_per_image
    assert len(told) >= 2
    assert told == [40 * count for count in range(1, len(told) + 1)]
    assert cycles - 80 < told[-1] <= cycles
    assert np.array_equal(result.outputs["y"], image[np.newaxis])

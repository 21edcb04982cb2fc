# SPDX-License-Identifier: Apache-2.0
"""A whole board in Verilator, from the pins of its UART on, with the driver that talks to real ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from loomwork.arch.command import encode
from loomwork.arch.config import TINY, Config
from loomwork.arch.isa import Window
from loomwork.arch.program import Program
from loomwork.arch.registers import BY_NAME, ID_VALUE, ErrorCode
from loomwork.compiler.driver import compile_model
from loomwork.fpga import host_link
from loomwork.fpga.board_backend import BoardBackend, BoardEngine
from loomwork.fpga.boards.catalog import ICEBREAKER, TANG_NANO_20K
from loomwork.fpga.host_link import HostLink, LinkError
from loomwork.fpga.simulated_board import MEMORY_KIB, SimulatedBoard
from loomwork.sim import driver
from loomwork.sim.backend import Array, RunError, run_program
from loomwork.sim.driver import EngineError
from tests.models import CHECKOUT, data_path, model_path
from tests.oracle import Oracle, run_tflite_micro
from tests.programs import copy_commands, copy_program, copy_step, network

PATIENT = 30.0
"""Seconds before a request is sent again where nothing is lost: however slow the simulation is."""
IMPATIENT = 0.5
IMAGES = np.random.default_rng(17).integers(-128, 128, (4, 6, 6, 3), dtype=np.int8)
EXPECTED = np.concatenate([run_tflite_micro(network(), [image[np.newaxis]])[0] for image in IMAGES])


@dataclass(frozen=True)
class Design:
    """What the board is: its core's configuration, memory, and whether the core is the compact one."""

    config: Config
    memory_kib: int
    compact: bool


DESIGNS = {
    "large": Design(TINY, MEMORY_KIB, compact=False),
    "icebreaker": Design(ICEBREAKER.config, ICEBREAKER.memory_kib, compact=True),
}


@pytest.fixture(params=DESIGNS.values(), ids=tuple(DESIGNS))
def design(request: pytest.FixtureRequest) -> Design:
    return request.param


@pytest.fixture
def board(design: Design) -> Iterator[SimulatedBoard]:
    with SimulatedBoard(design.config, memory_kib=design.memory_kib, compact=design.compact) as simulated:
        yield simulated


@pytest.fixture
def link(board: SimulatedBoard) -> Iterator[HostLink]:
    session = HostLink(board.port, timeout=PATIENT)
    yield session
    session.close()


def net(config: Config) -> Program:
    return compile_model(network(), config, name="net")


def run(link: HostLink, program: Program, images: Array) -> Array:
    result = run_program(program, {program.inputs[0]: images}, BoardBackend(link))
    return result.outputs[program.outputs[0]]


# What it computes


def test_a_network_computes_what_tflite_micro_does_and_counts_its_cycles(design: Design, link: HostLink):
    program = net(design.config)
    result = run_program(program, {"image": IMAGES}, BoardBackend(link))
    assert np.array_equal(result.outputs[program.outputs[0]], EXPECTED)
    assert len(np.unique(EXPECTED, axis=0)) > 1
    # A compact core waits for the memory while the host reads STATUS.
    assert max(result.cycles_per_image) - min(result.cycles_per_image) <= 100 * design.compact
    assert result.cycles_per_image[0] > result.statistics[0][0].counters["array_active"]
    assert result.statistics[0][0].counters["array_active"] > 0
    assert link.repeated == 0


def test_the_digits_network_computes_what_tflite_micro_does(design: Design, link: HostLink):
    model = CHECKOUT / "examples/digits/digits_int8.tflite"
    with np.load(CHECKOUT / "examples/digits/digits_test.npz") as data:
        images = data["images"][:8]
    oracle = Oracle(model)
    (expected,) = oracle.run_batch([images.reshape(-1, *oracle.input_shapes[0])])
    found = run(link, compile_model(model, design.config, name="digits"), images)
    assert np.array_equal(found.reshape(8, -1), expected.reshape(8, -1))


def test_keyword_spotting_computes_what_tflite_micro_does(design: Design, link: HostLink):
    model = model_path("mlperf_tiny/kws_dscnn_int8.tflite")
    with np.load(data_path("kws01_inputs.npz")) as data:
        images = data["x"][:2]
    oracle = Oracle(model)
    (expected,) = oracle.run_batch([images.reshape(-1, *oracle.input_shapes[0])])
    found = run(link, compile_model(model, design.config, name="ds_cnn"), images)
    assert np.array_equal(found.reshape(2, -1), expected.reshape(2, -1))


def test_the_other_board_with_a_compact_core_computes_what_tflite_micro_does():
    board = TANG_NANO_20K
    with SimulatedBoard(board.config, memory_kib=board.memory_kib, compact=board.compact) as simulated:
        session = HostLink(simulated.port, timeout=PATIENT)
        assert np.array_equal(run(session, net(board.config), IMAGES), EXPECTED)
        session.close()


# What it says


def test_memory_and_registers_are_there(design: Design, link: HostLink):
    data = np.random.default_rng(3).bytes(1000)
    end = link.memory_bytes - 1000
    link.write_memory(0, data)
    link.write_memory(end, data[::-1])
    assert link.read_memory(0, 1000) == data
    assert link.read_memory(end, 1000) == data[::-1]
    assert link.memory_bytes == design.memory_kib * 1024
    assert link.read_register(BY_NAME["ID"].offset) == ID_VALUE
    link.write_register(BY_NAME["WATCHDOG"].offset, 0x1234_5678)
    assert link.read_register(BY_NAME["WATCHDOG"].offset) == 0x1234_5678


def test_memory_that_is_not_there_is_refused(link: HostLink):
    with pytest.raises(LinkError, match=f"refused READ_MEMORY of 1 words at {link.memory_bytes:#x}"):
        link.read_memory(link.memory_bytes, 4)
    with pytest.raises(LinkError, match="refused WRITE_MEMORY of 2 words"):
        link.write_memory(link.memory_bytes - 4, bytes(8))
    assert link.read_memory(0, 4) is not None


# What may go wrong on the line


class Line:
    """Damages the bytes at certain distances, on both ways."""

    def __init__(self, damage: Callable[[bytes], bytes], every: int = 509) -> None:
        self._damage, self._every = damage, every
        self._count = {True: 0, False: 0}

    def __call__(self, data: bytes, to_board: bool) -> bytes:
        result = bytearray()
        for byte in data:
            self._count[to_board] += 1
            hit = self._count[to_board] % self._every == 0
            result += self._damage(bytes([byte])) if hit else bytes([byte])
        return bytes(result)


@pytest.mark.parametrize(
    "damage",
    [lambda byte: bytes([byte[0] ^ 0x10]), lambda _: b"", lambda byte: byte + b"\x55", lambda _: b"\x7e"],
    ids=["a changed bit", "a lost byte", "a byte too much", "a false flag"],
)
def test_damage_on_the_line_is_repaired(design: Design, board: SimulatedBoard, damage: Callable[[bytes], bytes]):
    board.spoil = Line(damage)
    link = HostLink(board.port, timeout=IMPATIENT)
    data = np.random.default_rng(4).bytes(1024)
    link.write_memory(0, data)
    assert link.read_memory(0, 1024) == data
    assert np.array_equal(run(link, net(design.config), IMAGES), EXPECTED)
    assert link.repeated > 0
    link.close()


def test_a_write_whose_answer_is_lost_is_not_carried_out_twice(board: SimulatedBoard, link: HostLink):
    link.write_memory(0, b"old!")
    stale = []

    def keep(data: bytes, to_board: bool) -> bytes:
        stale.append(data if to_board else b"")
        return data

    board.spoil = keep
    link.write_memory(0, b"1234")
    request = b"".join(stale)
    board.spoil = lambda data, _: data
    link.write_memory(0, b"5678")
    # As if the first one had been sent once more because its answer did not come, and arrived late.
    link._serial.write(request)
    assert link.read_memory(0, 4) == b"5678"
    assert link.repeated == 0


def test_a_silent_line_ends_in_an_error(board: SimulatedBoard, link: HostLink, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_link, "SILENCES", 2)
    board.spoil = lambda data, to_board: b""
    link._timeout = 0.1
    with pytest.raises(
        LinkError, match=r"nobody answers on .*: READ_REGISTERS was sent 2 times; is the board connected"
    ):
        link.read_register(0)


def test_a_line_that_damages_every_request_ends_in_an_error(board, link, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_link, "ATTEMPTS", 3)
    # Only the first of several requests is damaged: the board goes on answering that it misses one.
    board.spoil = lambda data, to_board: data.replace(b"first!!!", b"damaged!") if to_board else data
    link._timeout = IMPATIENT
    with pytest.raises(LinkError, match=r"the line on .* is too noisy: a request was lost 3 times"):
        link.write_memory(0, b"first!!!" * 32 + bytes(1024))


def test_a_cable_that_is_pulled_ends_in_an_error(design: Design, board: SimulatedBoard, link: HostLink):
    board.unplug()
    link._timeout = 0.1
    with pytest.raises(LinkError, match=r"nobody answers on|the connection on .* broke off"):
        run(link, net(design.config), IMAGES)


def test_a_board_that_was_reset_is_not_taken_for_the_one_that_was_filled(board: SimulatedBoard, link: HostLink):
    link.write_memory(0, bytes(64))
    board.reset()
    with pytest.raises(LinkError, match="was reset, or another program talks to it"):
        link.read_memory(0, 64)


def test_a_second_host_ends_the_session_of_the_first(board: SimulatedBoard, link: HostLink):
    second = HostLink(board.port, timeout=PATIENT)
    with pytest.raises(LinkError, match="was reset, or another program talks to it"):
        link.read_register(0)
    second.close()


def test_a_port_that_is_not_there_is_named():
    with pytest.raises(LinkError, match="the port /dev/nothing cannot be opened"):
        HostLink("/dev/nothing")
    with pytest.raises(LinkError, match="the port nonsense://x cannot be opened"):
        HostLink("nonsense://x")


# What may be wrong with the board


def test_a_bitstream_for_another_command_set_is_refused(
    design: Design, link: HostLink, monkeypatch: pytest.MonkeyPatch
):
    actual = driver.isa_hash()
    program = net(design.config)
    monkeypatch.setattr(driver, "isa_hash", lambda: actual ^ 1)
    with pytest.raises(RunError, match=f"core's ISA_HASH is {actual:#010x}, the program needs {actual ^ 1:#010x}"):
        run(link, program, IMAGES)


def test_a_bitstream_of_another_configuration_is_refused(design: Design, link: HostLink):
    with pytest.raises(RunError, match="core's CONFIG_HASH_LOW is"):
        run(link, net(replace(design.config, queue_depth=8)), IMAGES)


def test_a_program_that_is_too_large_for_the_memory_is_refused(design: Design, link: HostLink):
    link.memory_bytes = 4096
    with pytest.raises(RunError, match=r"the program needs \d+ KiB of memory, the board has 4 KiB"):
        run(link, net(design.config), IMAGES)


def test_an_error_that_an_earlier_host_has_left_is_not_told_to_the_next(design: Design, link: HostLink):
    engine = BoardEngine(link, design.config)
    link.write_memory(0, bytes(64))
    engine.set_window(Window.COMMANDS, 0, 64)
    engine.start()  # no command begins with zeros
    engine.wait()
    assert engine.read("ERROR_CODE") == ErrorCode.ILLEGAL_OPCODE
    assert np.array_equal(run(link, net(design.config), IMAGES), EXPECTED)


def test_an_error_of_the_engine_is_told_and_the_next_program_runs(design: Design, link: HostLink):
    load, store, end = copy_commands(design.config, 3, 2)
    broken = replace(store, operands={**store.operands, "offset": 1})
    step = replace(copy_step(design.config), commands=b"".join(map(encode, (load, broken, end))))
    program = replace(copy_program(design.config), steps=(step,))
    images = np.zeros((1, *program.tensors[0].image_shape), np.int8)
    with pytest.raises(EngineError, match=r"the engine stopped with WINDOW at command byte 32 \(STORE\)") as raised:
        run(link, program, images)
    assert raised.value.code is ErrorCode.WINDOW
    assert np.array_equal(run(link, net(design.config), IMAGES), EXPECTED)

# SPDX-License-Identifier: Apache-2.0
"""The PC's end of the host link (arch/link.py): registers and memory of a board over a serial port."""

import random
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import serial

from loomwork.arch.link import (
    CRC_BYTES,
    ESCAPE,
    ESCAPED_BIT,
    FLAG,
    HELLO_WORDS,
    LINK_VERSION,
    MAX_WORDS,
    READS,
    REPLY,
    REQUEST,
    WORD_BYTES,
    Operation,
    Status,
    header_bytes,
    pack,
    unpack,
)
from loomwork.sim.backend import RunError

BAUD = 1_000_000
"""Bits per second on the line, of every board."""
TIMEOUT = 0.5
"""Seconds to wait for an answer before asking again."""
SILENCES = 8
"""Times in a row that no answer comes before the connection is given up."""
ATTEMPTS = 100
"""Times that one request is sent before the line is given up as too noisy."""
WRITES_UNDERWAY = 4
"""Writes that are sent before the first is answered. Reads wait, for their answers take the line for long."""

_NUMBERS = 1 << 8


class LinkError(RunError):
    """The board cannot be reached, or is not what it should be; one sentence for the user."""


def encode_frame(payload: bytes) -> bytes:
    """What goes over the line for a header with its words: flags, escapes, checksum."""
    body = payload + zlib.crc32(payload).to_bytes(CRC_BYTES, "little")
    frame = bytearray([FLAG])
    for byte in body:
        frame += bytes([ESCAPE, byte ^ ESCAPED_BIT] if byte in (FLAG, ESCAPE) else [byte])
    frame.append(FLAG)
    return bytes(frame)


def decode_frame(body: bytes) -> bytes | None:
    """Header and words of what lay between two flags; None when it was damaged."""
    data = bytearray()
    escaped = False
    for byte in body:
        if byte == ESCAPE and not escaped:
            escaped = True
        else:
            data.append(byte ^ ESCAPED_BIT if escaped else byte)
            escaped = False
    payload, checksum = bytes(data[:-CRC_BYTES]), bytes(data[-CRC_BYTES:])
    if escaped or len(payload) < header_bytes(REPLY):
        return None
    return payload if zlib.crc32(payload).to_bytes(CRC_BYTES, "little") == checksum else None


@dataclass
class _Request:
    """One request, and how often it went out."""

    operation: Operation
    sequence: int
    words: int
    address: int
    data: bytes = b""
    attempts: int = 0

    @property
    def answer_bytes(self) -> int:
        """Bytes of data in its answer."""
        if self.operation is Operation.HELLO:
            return HELLO_WORDS * WORD_BYTES
        return self.words * WORD_BYTES if self.operation in READS else 0


class HostLink:
    """A session with a board.

    port: a device such as /dev/ttyUSB0 or COM3, or a URL of pyserial such as socket://localhost:2217.
    timeout: seconds to wait for an answer before asking again.
    memory_bytes: what the board has.

    Raises LinkError when there is no such port, or nobody answers there who speaks this protocol.
    """

    memory_bytes: int

    def __init__(self, port: str, *, timeout: float = TIMEOUT) -> None:
        self._port = port
        self._timeout = timeout
        self._received = bytearray()
        self._repeated = self._silences = 0
        try:
            self._serial = serial.serial_for_url(port, baudrate=BAUD, timeout=0.01, write_timeout=10)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise LinkError(f"the port {port} cannot be opened: {error}") from error
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the port back."""
        self._serial.close()

    @property
    def repeated(self) -> int:
        """Requests that had to be sent again so far."""
        return self._repeated

    def _begin(self) -> None:
        """Begin a session; its number and nonce tell its answers from those to an earlier host."""
        self._session, nonce = random.randrange(_NUMBERS), random.randrange(1 << 32)
        self._next = 0
        self._serial.reset_input_buffer()
        (answer,) = self._exchange([self._request(Operation.HELLO, 0, nonce)])
        version, self.memory_bytes, echo = struct.unpack(f"<{HELLO_WORDS}I", answer)
        if version != LINK_VERSION:
            raise LinkError(
                f"the board on {self._port} speaks version {version:#010x} of the link, not {LINK_VERSION:#010x}: "
                "build its bitstream anew"
            )
        if echo != nonce:
            raise LinkError(f"another program is talking to the board on {self._port}")

    def read_memory(self, address: int, count: int) -> bytes:
        """Read bytes. address, count: multiples of WORD_BYTES. Raises LinkError when the board does not answer."""
        return b"".join(
            self._exchange([self._request(Operation.READ_MEMORY, words, address + offset)])[0]
            for offset, words in _parts(count)
        )

    def write_memory(self, address: int, data: bytes, *, progress: Callable[[int], None] = lambda _: None) -> None:
        """Write bytes. address, length: multiples of WORD_BYTES. progress: told the bytes that have arrived.

        Raises LinkError when the board does not answer.
        """
        requests = (
            self._request(Operation.WRITE_MEMORY, words, address + offset, data[offset : offset + words * WORD_BYTES])
            for offset, words in _parts(len(data))
        )
        self._exchange(requests, lambda done: progress(min(done * MAX_WORDS * WORD_BYTES, len(data))))

    def read_registers(self, offset: int, count: int) -> list[int]:
        """Read registers that follow each other, at most MAX_WORDS. Raises LinkError when the board does not answer."""
        (answer,) = self._exchange([self._request(Operation.READ_REGISTERS, count, offset)])
        return list(struct.unpack(f"<{count}I", answer))

    def read_register(self, offset: int) -> int:
        """Read one register. Raises LinkError when the board does not answer."""
        return self.read_registers(offset, 1)[0]

    def write_register(self, offset: int, value: int) -> None:
        """Write one register. Raises LinkError when the board does not answer."""
        self._exchange([self._request(Operation.WRITE_REGISTERS, 1, offset, value.to_bytes(WORD_BYTES, "little"))])

    def _request(self, operation: Operation, words: int, address: int, data: bytes = b"") -> _Request:
        sequence = self._next
        self._next = (self._next + 1) % _NUMBERS
        return _Request(operation, sequence, words, address, data)

    def _exchange(self, requests: Iterable[_Request], progress: Callable[[int], None] = lambda _: None) -> list[bytes]:
        """Send requests, some at a time, until each is answered; their answers' data."""
        waiting = iter(requests)
        underway: deque[_Request] = deque()
        answers: list[bytes] = []
        more = True
        while more or underway:
            while more and len(underway) < WRITES_UNDERWAY:
                request = next(waiting, None)
                if request is None:
                    more = False
                else:
                    self._send(request)
                    underway.append(request)
            if underway and self._take_answer(underway, answers):
                progress(len(answers))
        return answers

    def _take_answer(self, underway: deque[_Request], answers: list[bytes]) -> bool:
        """Wait for an answer, and send again what was lost; whether a request has ended."""
        answer = self._receive()
        if answer is None:
            self._silences += 1
            if self._silences == SILENCES:
                raise LinkError(
                    f"nobody answers on {self._port}: {underway[0].operation.name} was sent {SILENCES} times; is the "
                    "board connected, and its bitstream loaded?"
                )
            self._repeat(underway)
            return False
        self._silences = 0
        sequence, status, data = answer
        position = next((place for place, request in enumerate(underway) if request.sequence == sequence), None)
        if position is None:
            return False  # the answer to a request that was sent twice
        if status is Status.NO_SESSION:
            raise LinkError(f"the board on {self._port} was reset, or another program talks to it")
        if status is Status.OUT_OF_ORDER:
            # Those behind it were refused for the same reason: one of them tells.
            if position == 1 or underway[0].attempts == 1:
                self._repeat(underway)
            return False
        request = underway[position]
        if status is Status.ILLEGAL:
            raise LinkError(
                f"the board refused {request.operation.name} of {request.words} words at {request.address:#x}"
            )
        if len(data) != request.answer_bytes:
            return False
        # Requests are carried out in order: those before this one were, and only their answers were lost. Writes only.
        for _ in range(position):
            underway.popleft()
            answers.append(b"")
        underway.popleft()
        answers.append(data)
        return True

    def _repeat(self, underway: deque[_Request]) -> None:
        for request in underway:
            self._repeated += 1
            self._send(request)

    def _send(self, request: _Request) -> None:
        request.attempts += 1
        if request.attempts > ATTEMPTS:
            raise LinkError(f"the line on {self._port} is too noisy: a request was lost {ATTEMPTS} times")
        header = pack(REQUEST, self._session, request.sequence, request.operation, request.words, request.address)
        try:
            self._serial.write(encode_frame(header + request.data))
        except OSError as error:
            raise LinkError(f"the connection on {self._port} broke off: {error}") from error

    def _receive(self) -> tuple[int, Status, bytes] | None:
        """The next answer of this session: its number, how it ended, its data. None when none comes in time."""
        end = time.monotonic() + self._timeout
        while time.monotonic() < end:
            while (body := self._frame()) is not None:
                payload = decode_frame(body)
                if payload is None:
                    continue
                session, sequence, status, words = unpack(REPLY, payload)
                data = payload[header_bytes(REPLY) :]
                if session == self._session and len(data) == words * WORD_BYTES and status in list(Status):
                    return sequence, Status(status), data
        return None

    def _frame(self) -> bytes | None:
        """What lies before the next flag, None when no more has come in; one look at the port at most."""
        if FLAG not in self._received:
            try:
                self._received += self._serial.read(max(1, self._serial.in_waiting))
            except OSError as error:
                raise LinkError(f"the connection on {self._port} broke off: {error}") from error
        end = self._received.find(FLAG)
        if end < 0:
            return None
        body = bytes(self._received[:end])
        del self._received[: end + 1]
        return body


def _parts(count: int) -> Generator[tuple[int, int]]:
    """Offset and words of each request for so many bytes."""
    size = MAX_WORDS * WORD_BYTES
    for offset in range(0, count, size):
        yield offset, min(size, count - offset) // WORD_BYTES

# SPDX-License-Identifier: Apache-2.0
"""The bridge: carries out the requests of the host link (arch/link.py) on registers and memory."""

from typing import Any

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import (
    HELLO_WORDS,
    LINK_VERSION,
    MAX_WORDS,
    READS,
    REPLY,
    REQUEST,
    WORD_BYTES,
    WRITES,
    Operation,
    Status,
    header_bytes,
)
from loomwork.fpga.link.framing import FRAME_BYTE
from loomwork.fpga.link.requests import header_layout
from loomwork.fpga.link.words import WordAccess

SEQUENCE_BITS = 8


class Bridge(Component):
    """Carries out one request after the other and answers each.

    memory_bytes: what the board has.
    pending, request, data_words, taken, index, data: of `Requests`. reply: bytes of answers.
    registers, memory: what requests reach.
    """

    pending: Signal
    request: data.View
    data_words: Signal
    taken: Signal
    index: Signal
    data: Signal
    reply: stream.Interface
    registers: Any
    memory: Any

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        super().__init__(
            {
                "pending": In(1),
                "request": In(header_layout(REQUEST)),
                "data_words": In(range(MAX_WORDS + 1)),
                "taken": Out(1),
                "index": Out(range(MAX_WORDS)),
                "data": In(8 * WORD_BYTES),
                "reply": Out(stream.Signature(FRAME_BYTE)),
                "registers": Out(WordAccess()),
                "memory": Out(WordAccess()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = self.request
        word, status, writes, words = Signal(range(MAX_WORDS)), Signal(Status), Signal(), Signal(8)
        shift, left, is_last = Signal(8 * WORD_BYTES), Signal(range(WORD_BYTES + 1)), Signal()
        sent = Signal()
        m.d.comb += [
            self.index.eq(word),
            self.reply.valid.eq(left != 0),
            self.reply.payload.data.eq(shift[:8]),
            self.reply.payload.last.eq(is_last & (left == 1)),
            sent.eq(self.reply.valid & self.reply.ready),
        ]
        with m.If(sent):
            m.d.sync += [shift.eq(shift >> 8), left.eq(left - 1)]

        access, done, found = self._access(m, word, writes)
        expected = Signal(SEQUENCE_BITS)
        is_legal, ahead = self._check(m, expected)
        hello = Array([Const(LINK_VERSION, 32), Const(self._memory_bytes, 32), request.address])
        is_hello = request.operation == Operation.HELLO
        header = data.View(header_layout(REPLY), Signal(header_layout(REPLY).size, name="header"))
        m.d.comb += [
            header.session.eq(request.session),
            header.sequence.eq(request.sequence),
            header.status.eq(status),
            header.words.eq(words),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += word.eq(0)
                with m.If(self.pending):
                    m.next = "PENDING"
            with m.State("PENDING"):
                # The checks of the request are in registers now.
                self._judge(
                    m,
                    is_legal=is_legal,
                    ahead=ahead,
                    expected=expected,
                    status=status,
                    writes=writes,
                    words=words,
                )
                m.next = "JUDGED"
            with m.State("JUDGED"):
                # The first word of data comes out of the buffer now.
                m.next = "HEADER"
                with m.If(writes):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += access.eq(~done)
                with m.If(done):
                    m.d.sync += word.eq(word + 1)
                    m.next = "JUDGED"
                    with m.If(word == self.data_words - 1):
                        m.d.sync += word.eq(0)
                        m.next = "HEADER"
            with m.State("HEADER"):
                m.d.sync += [shift.eq(header.as_value()), left.eq(header_bytes(REPLY)), is_last.eq(words == 0)]
                m.d.comb += self.taken.eq(words == 0)
                m.next = "SEND"
            with m.State("SEND"):
                with m.If(sent & (left == 1)):
                    m.next = "READ"
                    with m.If(is_last):
                        m.d.comb += self.taken.eq(words != 0)
                        m.next = "IDLE"
            with m.State("READ"):
                m.d.comb += access.eq(~done & ~is_hello)
                m.d.sync += shift.eq(Mux(is_hello, hello[word[:2]], found))
                with m.If(done | is_hello):
                    m.d.sync += [left.eq(WORD_BYTES), is_last.eq(word == words - 1), word.eq(word + 1)]
                    m.next = "SEND"
        return m

    def _access(self, m: Module, word: Value, writes: Value) -> tuple[Signal, Signal, Signal]:
        """Join both targets: a signal that asks, one that tells that it is done, and what was read."""
        operation = self.request.operation
        of_memory = (operation == Operation.READ_MEMORY) | (operation == Operation.WRITE_MEMORY)
        access, done, found = Signal(), Signal(), Signal(8 * WORD_BYTES)
        for target, chosen in ((self.memory, of_memory), (self.registers, ~of_memory)):
            m.d.comb += [
                target.request.eq(access & chosen),
                target.write.eq(writes),
                target.address.eq(self.request.address + (word << 2)),
                target.write_data.eq(self.data),
            ]
        m.d.comb += [
            done.eq(self.memory.done | self.registers.done),
            found.eq(Mux(of_memory, self.memory.read_data, self.registers.read_data)),
        ]
        return access, done, found

    def _check(self, m: Module, expected: Signal) -> tuple[Signal, Signal]:
        """Whether the request that is pending is legal, and how far its number is ahead, both a cycle later."""
        request = self.request
        operation = request.operation
        is_legal, ahead = Signal(), Signal(SEQUENCE_BITS)
        is_read, is_write = self._kinds()
        of_memory = (operation == Operation.READ_MEMORY) | (operation == Operation.WRITE_MEMORY)
        end = request.address + (request.words << 2)
        m.d.sync += [
            ahead.eq(request.sequence - expected),
            is_legal.eq(
                (is_read & (self.data_words == 0) | is_write & (self.data_words == request.words))
                & (request.words != 0)
                & (request.words <= MAX_WORDS)
                & (request.address[:2] == 0)
                & (~of_memory | (end <= self._memory_bytes))
            ),
        ]
        return is_legal, ahead

    def _kinds(self) -> tuple[Value, Value]:
        """Whether the request is a read, and a write."""
        operation = self.request.operation
        is_read, is_write = (Value.cast(sum(operation == one for one in kinds)).any() for kinds in (READS, WRITES))
        return is_read, is_write

    def _judge(
        self,
        m: Module,
        *,
        is_legal: Signal,
        ahead: Signal,
        expected: Signal,
        status: Signal,
        writes: Signal,
        words: Signal,
    ) -> None:
        """Decide on the request that is pending, and keep session and number.

        is_legal, ahead: see `_check`. expected: number of the next request. words: of the answer.
        """
        request = self.request
        session, has_session = Signal(8), Signal()
        is_read, is_write = self._kinds()
        m.d.sync += [writes.eq(0), words.eq(0), status.eq(Status.OK)]
        with m.If((request.operation == Operation.HELLO) & (self.data_words == 0)):
            m.d.sync += [
                *(session.eq(request.session), has_session.eq(1), expected.eq(request.sequence + 1)),
                words.eq(HELLO_WORDS),
            ]
        with m.Elif(~has_session | (session != request.session)):
            m.d.sync += status.eq(Status.NO_SESSION)
        with m.Elif((ahead != 0) & ~ahead[-1]):
            m.d.sync += status.eq(Status.OUT_OF_ORDER)
        with m.Else():
            with m.If(ahead == 0):
                m.d.sync += expected.eq(expected + 1)
            with m.If(~is_legal):
                m.d.sync += status.eq(Status.ILLEGAL)
            with m.Else():
                m.d.sync += [writes.eq(is_write & (ahead == 0)), words.eq(Mux(is_read, request.words, 0))]

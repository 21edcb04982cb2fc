# SPDX-License-Identifier: Apache-2.0
"""The bridge: carries out the requests of the host link (arch/link.py) on registers and memory."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from loomwork.arch.link import (
    HELLO_WORDS,
    LINK_VERSION,
    MAX_WORDS,
    READS,
    REGISTERS_BIT,
    REPLY,
    REQUEST,
    WORD_BYTES,
    WRITE_BIT,
    WRITES,
    Operation,
    Status,
)
from loomwork.fpga.link.framing import FRAME_BYTE
from loomwork.fpga.link.requests import FIRST_INDEX, header_layout
from loomwork.fpga.link.words import WordAccess

SEQUENCE_BITS = 8


@dataclass(frozen=True)
class Checks:
    """What is known of the request, from registers.

    is_hello: it begins a session. in_session: it belongs to the one that there is. is_next, is_early: its number is the
    next one, or one before it has not arrived. is_legal: it can be carried out.
    """

    is_hello: Signal
    in_session: Signal
    is_next: Signal
    is_early: Value
    is_legal: Value


def _equal(m: Module, one: Value, other: Value) -> Value:
    """Whether two numbers of up to 8 bits are equal, a cycle later: a register for each half, which is two levels."""
    low, high = Signal(), Signal()
    m.d.sync += [low.eq(one[:4] == other[:4]), high.eq(one[4:] == other[4:])]
    return low & high


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
                "index": Out(range(FIRST_INDEX, MAX_WORDS)),
                "data": In(8 * WORD_BYTES),
                "reply": Out(stream.Signature(FRAME_BYTE)),
                "registers": Out(WordAccess()),
                "memory": Out(WordAccess()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = self.request
        # A word's index; as bits also MAX_WORDS, behind the last one.
        word, status, reads, writes = Signal.like(self.index), Signal(Status), Signal(), Signal()
        # Header and words of an answer are of one size, four bytes.
        shift, place, is_last = Signal(8 * WORD_BYTES), Signal(range(WORD_BYTES)), Signal()
        is_header, settled, sent, ends = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.index.eq(word),
            self.reply.payload.data.eq(shift[:8]),
            self.reply.payload.last.eq(is_last & (place == WORD_BYTES - 1)),
            sent.eq(self.reply.valid & self.reply.ready),
            ends.eq(sent & (place == WORD_BYTES - 1)),
        ]
        with m.If(sent):
            m.d.sync += place.eq(place + 1)
        with m.If(ends):
            m.d.sync += [self.reply.valid.eq(0), is_header.eq(0)]

        session, has_session, expected = Signal(8), Signal(), Signal(SEQUENCE_BITS)
        checks = self._check(m, session=session, has_session=has_session, expected=expected)
        words = Mux(checks.is_hello, HELLO_WORDS, request.words)
        # Two cycles behind `word`, which stays for longer wherever this is asked for.
        m.d.sync += is_last.eq(_equal(m, word.as_unsigned(), words[: len(word)]) | ~(reads | writes))
        header = data.View(header_layout(REPLY), Signal(header_layout(REPLY).size, name="header"))
        m.d.comb += [
            header.session.eq(request.session),
            header.sequence.eq(request.sequence),
            header.status.eq(status),
            header.words.eq(Mux(reads, words, 0)),
        ]
        access, done, found = self._access(m, word[:-1], writes, is_hello=checks.is_hello)
        m.d.sync += self.taken.eq(ends & is_last & reads)
        # While nothing is sent, whatever is there is ready to be.
        with m.If(self.reply.valid):
            with m.If(self.reply.ready):
                m.d.sync += shift.eq(shift >> 8)
        with m.Elif(~done):
            m.d.sync += shift.eq(Mux(is_header, header.as_value(), found))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [word.eq(FIRST_INDEX), is_header.eq(1)]
                with m.If(self.pending):
                    m.next = "PENDING"
            with m.State("PENDING"):
                # The header comes out of the buffer, then the checks reach their registers.
                m.d.sync += word.eq(word + 1)
                with m.If(word[:3].all()):  # -1
                    m.next = "CHECKED"
            with m.State("CHECKED"):
                self._judge(m, checks, status=status, reads=reads, writes=writes)
                with m.If(checks.is_hello):
                    m.d.sync += [session.eq(request.session), has_session.eq(1)]
                with m.If(checks.is_hello | checks.in_session & checks.is_next):
                    m.d.sync += expected.eq(request.sequence + 1)
                m.next = "JUDGED"
            with m.State("JUDGED"):
                # In two cycles, a word of data comes out of the buffer and `is_last` follows `word`.
                m.d.sync += settled.eq(~settled)
                with m.If(settled):
                    m.next = "HEADER"
                    with m.If(writes):
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += access.eq(~is_last)
                with m.If(is_last):
                    m.next = "HEADER"
                with m.Elif(done):
                    m.d.sync += word.eq(word + 1)
                    m.next = "JUDGED"
            with m.State("HEADER"):
                m.d.sync += [self.reply.valid.eq(1), self.taken.eq(is_last)]
                m.next = "SEND"
            with m.State("SEND"):
                with m.If(~self.reply.valid):
                    m.next = "READ"
                    with m.If(is_last):
                        m.next = "IDLE"
            with m.State("READ"):
                m.d.comb += access.eq(1)
                with m.If(done):
                    m.d.sync += [self.reply.valid.eq(1), word.eq(word + 1)]
                    m.next = "SEND"
        return m

    def _access(self, m: Module, word: Value, writes: Value, *, is_hello: Value) -> tuple[Signal, Signal, Signal]:
        """Join both targets, and the words of HELLO.

        Returns a signal that asks, one that tells that it is done, and what was read a cycle before that.
        """
        operation, address = self.request.operation, self.request.address
        access, done, found, ends = Signal(), Signal(), Signal(8 * WORD_BYTES), Signal()
        of_registers = operation[REGISTERS_BIT]
        for target, chosen in ((self.memory, ~of_registers), (self.registers, of_registers)):
            m.d.sync += target.request.eq(access & chosen & ~is_hello & ~ends & ~done)
            m.d.comb += [
                target.write.eq(writes),
                target.address.eq(address + (word << 2)),
                target.write_data.eq(self.data),
            ]
        hello = Array([Const(LINK_VERSION, 32), Const(self._memory_bytes, 32), address])
        there = Mux(of_registers, self.registers.read_data, self.memory.read_data)
        m.d.comb += [
            ends.eq(self.memory.done | self.registers.done),
            found.eq(Mux(is_hello, hello[word[:2]], there)),
        ]
        m.d.sync += done.eq(ends | access & is_hello & ~done)
        return access, done, found

    def _check(self, m: Module, *, session: Signal, has_session: Signal, expected: Signal) -> Checks:
        """Checks of the request, two cycles after it has come: sums and what is compared first, then the rest.

        session, has_session: the one that there is. expected: number of its next request.
        """
        request = self.request
        operation, words, address = request.operation, request.words, request.address
        is_hello, is_other, has_data = Signal(), Signal(), Signal()
        ahead, is_countable, is_placed = Signal(SEQUENCE_BITS), Signal(), Signal()
        # What lies above the size of the memory is compared, not added.
        bits = self._memory_bytes.bit_length()
        end = Signal(range((1 << bits) // WORD_BYTES + (1 << len(words))))
        of_registers = operation[REGISTERS_BIT]
        m.d.sync += [
            is_hello.eq((operation == Operation.HELLO) & (self.data_words == 0)),
            is_other.eq(operation.matches(*READS, *WRITES)),
            has_data.eq(self.data_words != 0),
            ahead.eq(request.sequence - expected),
            is_countable.eq((words != 0) & (words <= MAX_WORDS)),
            is_placed.eq((address[:2] == 0) & (of_registers | (address[bits:] == 0))),
            end.eq(address[2:bits] + words),
        ]
        has_all, is_same = _equal(m, self.data_words, words), _equal(m, request.session, session)
        in_session, is_next, fits, is_inside = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            in_session.eq(has_session & is_same),
            is_next.eq(ahead == 0),
            fits.eq(is_other & is_countable & is_placed & Mux(operation[WRITE_BIT], has_all, ~has_data)),
            is_inside.eq(of_registers | (end <= self._memory_bytes // WORD_BYTES)),
        ]
        return Checks(
            is_hello=is_hello,
            in_session=in_session,
            is_next=is_next,
            is_early=~is_next & ~ahead[-1],
            is_legal=fits & is_inside,
        )

    def _judge(self, m: Module, checks: Checks, *, status: Signal, reads: Signal, writes: Signal) -> None:
        """Decide on the request that is pending: what is answered, and whether it reads or writes words."""
        is_write = self.request.operation[WRITE_BIT]
        is_fine = ~checks.is_hello & checks.in_session & checks.is_legal & ~checks.is_early
        m.d.sync += [
            reads.eq(checks.is_hello | is_fine & ~is_write),
            writes.eq(is_fine & is_write & checks.is_next),
        ]
        with m.If(checks.is_hello):
            m.d.sync += status.eq(Status.OK)
        with m.Elif(~checks.in_session):
            m.d.sync += status.eq(Status.NO_SESSION)
        with m.Elif(checks.is_early):
            m.d.sync += status.eq(Status.OUT_OF_ORDER)
        with m.Else():
            m.d.sync += status.eq(Mux(checks.is_legal, Status.OK, Status.ILLEGAL))

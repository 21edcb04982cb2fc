# SPDX-License-Identifier: Apache-2.0
"""The host link's table: headers as they are on the line."""

import pytest

from loomwork.arch.link import (
    MAX_WORDS,
    READS,
    REGISTERS_BIT,
    REPLY,
    REQUEST,
    WRITE_BIT,
    WRITES,
    Operation,
    header_bytes,
    pack,
    unpack,
)


def test_a_request_is_what_the_documentation_says():
    # docs/host-link.md: session, number, operation, words, address with its lowest byte first.
    assert pack(REQUEST, 0x11, 0x22, Operation.WRITE_MEMORY, 64, 0x1234_5678) == bytes.fromhex("11220340 78563412")


def test_an_answer_is_what_the_documentation_says():
    assert unpack(REPLY, bytes.fromhex("11220205 deadbeef")) == (0x11, 0x22, 2, 5)


@pytest.mark.parametrize("parts", [REQUEST, REPLY])
def test_what_is_packed_is_unpacked(parts):
    values = tuple(range(1, len(parts) + 1))
    assert unpack(parts, pack(parts, *values)) == values
    assert len(pack(parts, *values)) == header_bytes(parts)


def test_headers_are_whole_words_and_counts_fit_their_byte():
    assert header_bytes(REQUEST) % 4 == header_bytes(REPLY) % 4 == 0
    assert MAX_WORDS < 256


def test_each_operation_but_hello_reads_or_writes():
    assert {*READS, *WRITES, Operation.HELLO} == set(Operation)
    assert not {*READS} & {*WRITES}
    assert [operation >> WRITE_BIT & 1 for operation in (*READS, *WRITES)] == [0, 0, 1, 1]
    of_registers = {Operation.READ_REGISTERS, Operation.WRITE_REGISTERS}
    assert {operation for operation in (*READS, *WRITES) if operation >> REGISTERS_BIT & 1} == of_registers

# SPDX-License-Identifier: Apache-2.0
"""The host link: how a PC reaches registers and memory of a board over a serial line. Gateware and driver share it.

Framing is that of RFC 1662, "PPP in HDLC-like Framing": a frame lies between two FLAG bytes (section 4.1); inside,
FLAG and ESCAPE are sent as ESCAPE and the byte with bit 5 inverted (section 4.2); the last four bytes are FCS-32
(appendix C.3), which is zlib's CRC-32, lowest byte first. A frame with a wrong FCS is dropped without an answer.

The host asks, the board answers each request that it can read, in order. A request names the session that HELLO
began and its number in it; the board carries out requests in the order of their numbers, each write once:

- the number that comes next is carried out;
- an older one was carried out before and its answer perhaps lost: reads are made again, writes only answered;
- a newer one means that one between was lost: OUT_OF_ORDER, nothing is done.

So the host may send several requests without waiting and repeats from the one that was lost ("go-back-N",
Tanenbaum, Computer Networks, section 3.4.2). After a reset the board knows no session and refuses everything but
HELLO: a host never takes a board that has lost its memory for the one that it has filled.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

FLAG = 0x7E
ESCAPE = 0x7D
ESCAPED_BIT = 0x20
CRC_BYTES = 4

WORD_BYTES = 4
MAX_WORDS = 64
"""Words of four bytes in one frame, at most."""

LINK_VERSION = 0x4C4C0001
"""First word of the answer to HELLO: 'LL' and the version of this protocol."""
HELLO_WORDS = 3
"""Words of the answer to HELLO: LINK_VERSION, bytes of memory on the board, the address of the request (a nonce)."""


class Operation(IntEnum):
    """What a request asks for."""

    HELLO = 1
    """Begin the session named in the request; its next request has the number after this one."""
    READ_MEMORY = 2
    WRITE_MEMORY = 3
    READ_REGISTERS = 4
    """Addresses are offsets in the register map."""
    WRITE_REGISTERS = 5


WRITE_BIT, REGISTERS_BIT = 0, 2
"""Of an operation that reads or writes: the bits that say whether it writes, and whether it is one of registers."""

READS = (Operation.READ_MEMORY, Operation.READ_REGISTERS)
WRITES = (Operation.WRITE_MEMORY, Operation.WRITE_REGISTERS)


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    NO_SESSION = 1
    """The board has no session of this number: it was reset, or another host began one."""
    OUT_OF_ORDER = 2
    """A request before this one has not arrived; nothing was done."""
    ILLEGAL = 3
    """No such operation, a number of words that does not fit the frame, or memory that the board does not have."""


@dataclass(frozen=True)
class Part:
    """One part of a frame's header: name and bytes, lowest byte first."""

    name: str
    bytes: int


REQUEST = (Part("session", 1), Part("sequence", 1), Part("operation", 1), Part("words", 1), Part("address", 4))
"""Header of a request; the words of a write follow. address: of a byte; a multiple of WORD_BYTES."""
REPLY = (Part("session", 1), Part("sequence", 1), Part("status", 1), Part("words", 1))
"""Header of an answer; the words of a read follow. session, sequence: of the request."""

_CODES = {1: "B", 4: "I"}


def header_bytes(parts: tuple[Part, ...]) -> int:
    """Bytes of a header."""
    return sum(part.bytes for part in parts)


def pack(parts: tuple[Part, ...], *values: int) -> bytes:
    """A header from the values of its parts. Raises struct.error for a value that is too large."""
    return struct.pack("<" + "".join(_CODES[part.bytes] for part in parts), *values)


def unpack(parts: tuple[Part, ...], frame: bytes) -> tuple[int, ...]:
    """The values of a header's parts, from the beginning of a frame. Raises struct.error when that is too short."""
    return struct.unpack_from("<" + "".join(_CODES[part.bytes] for part in parts), frame)

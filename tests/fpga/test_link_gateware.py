# SPDX-License-Identifier: Apache-2.0
"""The board's end of the host link, part by part: UART, frames, requests, memory."""

import gc
import random
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from loomwork.arch.config import TINY, ConfigError
from loomwork.arch.link import ESCAPE, FLAG
from loomwork.fpga.link.framing import Deframer, Framer
from loomwork.fpga.link.memory import OnChipMemory
from loomwork.fpga.link.uart import UartReceiver, UartTransmitter

# Those that are refused are found unused later, in any of the tests.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Find what was never used at once, where it is ignored, and not in the midst of some other test."""
    yield
    gc.collect()


def simulate(design, *benches):
    """Run test benches on a design until all have ended."""
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def stuffed(payload: bytes) -> bytes:
    """A frame by RFC 1662, sections 4 and C.3, written down once more for the tests."""
    body = payload + zlib.crc32(payload).to_bytes(4, "little")
    return b"\x7e" + body.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e") + b"\x7e"


# UART


def bits_of(byte: int) -> list[int]:
    return [0, *(byte >> bit & 1 for bit in range(8)), 1]


@pytest.mark.parametrize("divisor", [4, 5, 16])
def test_the_receiver_reads_bytes_at_slightly_wrong_speeds(divisor: int):
    sent = random.Random(divisor).randbytes(40)
    for cycles in (divisor, divisor * 0.98, divisor * 1.02):
        receiver, got = UartReceiver(divisor), []

        async def line(ctx, receiver=receiver, got=got, cycles=cycles):
            ctx.set(receiver.rx, 1)
            time, now = 10.0, 0
            edges = [(time + cycles * place, bit) for place, bit in enumerate(b for s in sent for b in bits_of(s))]
            edges.append((edges[-1][0] + 5 * cycles, 1))
            for when, bit in edges:
                while now < when:
                    await ctx.tick()
                    now += 1
                    if ctx.get(receiver.valid):
                        got.append(ctx.get(receiver.data))
                    assert not ctx.get(receiver.error)
                ctx.set(receiver.rx, bit)

        simulate(receiver, line)
        assert bytes(got) == sent


def test_a_byte_without_a_stop_bit_is_an_error_and_the_next_one_is_read():
    receiver, got = UartReceiver(8), []

    async def line(ctx):
        for bit in [1, 1, 0, *[0] * 8, 0, 1, 1, 1, *bits_of(0x5A), 1, 1]:
            ctx.set(receiver.rx, bit)
            for _ in range(8):
                await ctx.tick()
                if ctx.get(receiver.error):
                    got.append("error")
                if ctx.get(receiver.valid):
                    got.append(ctx.get(receiver.data))

    simulate(receiver, line)
    assert got == ["error", 0x5A]


def test_a_glitch_is_no_start_bit():
    receiver = UartReceiver(16)

    async def line(ctx):
        for level, cycles in ((1, 20), (0, 3), (1, 400)):
            ctx.set(receiver.rx, level)
            for _ in range(cycles):
                await ctx.tick()
                assert not ctx.get(receiver.valid)
                assert not ctx.get(receiver.error)

    simulate(receiver, line)


def test_the_transmitter_holds_each_bit_for_the_divisor():
    transmitter, sent, levels = UartTransmitter(7), [0x00, 0xFF, 0xA5, 0x5A], []

    async def feed(ctx):
        for byte in sent:
            ctx.set(transmitter.i.payload, byte)
            ctx.set(transmitter.i.valid, 1)
            await ctx.tick().until(transmitter.i.ready)
        ctx.set(transmitter.i.valid, 0)

    async def watch(ctx):
        for _ in range(7 * 10 * len(sent) + 40):
            await ctx.tick()
            levels.append(ctx.get(transmitter.tx))

    simulate(transmitter, feed, watch)
    got = []
    position = levels.index(0)
    while position is not None:
        bits = [levels[position + 7 * bit : position + 7 * bit + 7] for bit in range(10)]
        assert all(len(set(bit)) == 1 for bit in bits), "a bit that is shorter than the others"
        assert (bits[0][0], bits[9][0]) == (0, 1)
        got.append(sum(bits[1 + bit][0] << bit for bit in range(8)))
        rest = levels[position + 70 :]
        position = position + 70 + rest.index(0) if 0 in rest else None
    assert got == sent


@pytest.mark.parametrize("divisor", [0, 3])
def test_a_divisor_without_a_middle_is_refused(divisor: int):
    with pytest.raises(ValueError, match=f"divisor must be at least 4, not {divisor}"):
        UartReceiver(divisor)


# Frames


def received(stream: list[int | None]) -> list[bytes | str]:
    """What a deframer makes of bytes, None being an error: payloads with their checksum, or "bad"."""
    deframer, events, body = Deframer(), [], bytearray()

    async def line(ctx):
        for byte in stream:
            ctx.set(deframer.valid, byte is not None)
            ctx.set(deframer.error, byte is None)
            ctx.set(deframer.data, byte or 0)
            for _ in range(5):
                if ctx.get(deframer.push):
                    body.append(ctx.get(deframer.byte))
                if ctx.get(deframer.good):
                    events.append(bytes(body))
                if ctx.get(deframer.bad):
                    events.append("bad")
                if ctx.get(deframer.begin):
                    body.clear()
                await ctx.tick()
                ctx.set(deframer.valid, 0)
                ctx.set(deframer.error, 0)

    simulate(deframer, line)
    return events


PAYLOADS = [bytes([FLAG, ESCAPE, 0x20, 0x5E]), bytes(range(256)), b"\x00", random.Random(3).randbytes(60)]


def test_frames_are_found_with_flags_and_escapes_in_them():
    stream = b"noise" + b"".join(map(stuffed, PAYLOADS)) + b"\x7e\x7e\x7e" + stuffed(b"last")
    expected = [payload + zlib.crc32(payload).to_bytes(4, "little") for payload in [*PAYLOADS, b"last"]]
    assert received(list(stream)) == expected


def test_each_changed_bit_makes_a_frame_bad():
    for place in range(8):
        for bit in (1, 8, 128):
            damaged = bytearray(stuffed(b"\x01\x02\x03\x04"))
            damaged[1 + place] ^= bit
            assert zlib.crc32(b"\x01\x02\x03\x04") not in received(list(damaged + stuffed(b"next")))
            assert received(list(damaged + stuffed(b"next")))[-1][:4] == b"next"
            assert received(list(damaged))[:1] in (["bad"], [])


def test_a_lost_byte_or_a_frame_that_is_broken_off_is_not_taken():
    frame = list(stuffed(b"\x01\x02\x03\x04"))
    assert received([*frame[:3], None, *frame[3:], *stuffed(b"next")])[-1][:4] == b"next"
    assert len(received([*frame[:3], None, *frame[3:]])) == 0
    assert received([*frame[:4], *frame]) == ["bad", bytes(frame[1:-1])]
    assert received([FLAG, 1, 2, ESCAPE, FLAG]) == ["bad"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_framer_makes_what_the_standard_says(payload: bytes):
    framer, sent = Framer(), []
    stalls = random.Random(len(payload))

    async def feed(ctx):
        for place, byte in enumerate(payload):
            ctx.set(framer.i.payload, {"data": byte, "last": place == len(payload) - 1})
            ctx.set(framer.i.valid, 1)
            await ctx.tick().until(framer.i.ready)
            ctx.set(framer.i.valid, 0)
            await ctx.tick().repeat(stalls.randrange(1, 3))

    async def take(ctx):
        while sent.count(FLAG) < 2:
            ready = stalls.randrange(2)
            ctx.set(framer.o.ready, ready)
            if ctx.get(framer.o.valid) and ready:
                sent.append(ctx.get(framer.o.payload))
            await ctx.tick()

    simulate(framer, feed, take)
    assert bytes(sent) == stuffed(payload)


# Memory


class MemoryBench:
    """Drives both entrances of a memory, and keeps what should be in it."""

    def __init__(self, memory: OnChipMemory, size: int, seed: int) -> None:
        self.memory, self.size, self.chance = memory, size, random.Random(seed)
        self.expected = bytearray(size)

    async def word(self, ctx, address: int, data: int | None) -> int:
        words = self.memory.words
        ctx.set(words.request, 1)
        ctx.set(words.write, data is not None)
        ctx.set(words.address, address)
        ctx.set(words.write_data, data or 0)
        for _ in range(20):
            await ctx.tick()
            if ctx.get(words.done):
                value = ctx.get(words.read_data)
                ctx.set(words.request, 0)
                await ctx.tick()
                return value
        raise AssertionError("no answer")

    async def write(self, ctx, address: int, beats: list[tuple[bytes, int]]) -> int:
        port = self.memory.write
        ctx.set(port.awaddr, address)
        ctx.set(port.awvalid, 1)
        await ctx.tick().until(port.awready)
        ctx.set(port.awvalid, 0)
        ctx.set(port.bready, 1)
        for place, (data, strobe) in enumerate(beats):
            ctx.set(port.wdata, int.from_bytes(data, "little"))
            ctx.set(port.wstrb, strobe)
            ctx.set(port.wlast, place == len(beats) - 1)
            ctx.set(port.wvalid, 1)
            await ctx.tick().until(port.wready)
        ctx.set(port.wvalid, 0)
        while not ctx.get(port.bvalid):
            await ctx.tick()
        response = ctx.get(port.bresp)
        await ctx.tick()
        return response

    async def read(self, ctx, address: int, beats: int, ident: int) -> list[tuple[bytes, int]]:
        port = self.memory.read
        ctx.set(port.araddr, address)
        ctx.set(port.arlen, beats - 1)
        ctx.set(port.arid, ident)
        ctx.set(port.arvalid, 1)
        ctx.set(port.rready, 1)
        await ctx.tick().until(port.arready)
        ctx.set(port.arvalid, 0)
        found = []
        for _ in range(beats + 10):
            await ctx.tick()
            if ctx.get(port.rvalid):
                assert ctx.get(port.rid) == ident
                found.append((ctx.get(port.rdata).to_bytes(BUS, "little"), ctx.get(port.rresp)))
                assert ctx.get(port.rlast) == (len(found) == beats)
        return found

    async def check_word(self, ctx) -> None:
        place = self.chance.randrange(self.size // 4) * 4
        if self.chance.randrange(2):
            self.expected[place : place + 4] = data = self.chance.randbytes(4)
            await self.word(ctx, place, int.from_bytes(data, "little"))
        else:
            assert (await self.word(ctx, place, None)).to_bytes(4, "little") == self.expected[place : place + 4]

    async def check_burst(self, ctx) -> None:
        address = self.chance.randrange(self.size // BUS) * BUS
        count = min(self.chance.randrange(1, 9), (self.size - address) // BUS)
        if self.chance.randrange(2):
            beats = [(self.chance.randbytes(BUS), self.chance.randrange(1 << BUS)) for _ in range(count)]
            assert await self.write(ctx, address, beats) == 0
            enabled = [(data[byte], strobe >> byte & 1) for data, strobe in beats for byte in range(BUS)]
            for place, (value, strobe) in enumerate(enabled, address):
                self.expected[place] = value if strobe else self.expected[place]
        else:
            found = await self.read(ctx, address, count, self.chance.randrange(4))
            places = range(address, address + count * BUS, BUS)
            assert found == [(bytes(self.expected[place : place + BUS]), 0) for place in places]


BUS = TINY.bus_bytes


def test_the_memory_serves_bursts_and_single_words():
    size = 256
    bench = MemoryBench(OnChipMemory(TINY, size), size, seed=5)

    async def run(ctx):
        for _ in range(40):
            await bench.check_word(ctx)
            await bench.check_burst(ctx)
        # Behind the end: an error, and nothing is changed.
        assert [response for _, response in await bench.read(ctx, size - BUS, 2, 1)] == [0, 3]
        assert await bench.write(ctx, size, [(b"\xff" * BUS, (1 << BUS) - 1)]) == 3
        found = await bench.read(ctx, 0, size // BUS, 2)
        assert b"".join(data for data, _ in found) == bytes(bench.expected)

    simulate(bench.memory, run)


def test_a_word_of_the_link_comes_between_the_beats_of_a_burst():
    size = 256
    bench = MemoryBench(OnChipMemory(TINY, size), size, seed=6)
    contents = bench.chance.randbytes(size)

    async def bursts(ctx):
        await bench.write(ctx, 0, [(contents[place : place + BUS], (1 << BUS) - 1) for place in range(0, size, BUS)])
        found = await bench.read(ctx, 0, size // BUS - 1, 1)
        assert b"".join(data for data, _ in found) == contents[: size - BUS]

    async def words(ctx):
        # Always to the last word, which the bursts do not look at.
        for value in range(40):
            await bench.word(ctx, size - 4, value)
            await ctx.tick().repeat(bench.chance.randrange(1, 4))

    simulate(bench.memory, bursts, words)


@pytest.mark.parametrize(
    ("bus", "size", "message"),
    [(2, 64, "bus_bytes must be at least 4 on a board, not 2"), (4, 66, "a multiple of 4 bytes, not 66")],
)
def test_a_memory_that_does_not_fit_the_bus_is_refused(bus: int, size: int, message: str):
    with pytest.raises(ConfigError, match=message):
        OnChipMemory(replace(TINY, bus_bytes=bus), size)

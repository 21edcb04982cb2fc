# SPDX-License-Identifier: Apache-2.0
"""The scratchpad against an array of bytes, with random traffic on all five ports at once."""

import random
import re
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from amaranth.back import verilog
from amaranth.hdl import Value
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BANKS, FORMAL, MID, TINY, Config
from loomwork.rtl.ports import feed_latency, window_latency
from loomwork.rtl.scratchpad import Scratchpad
from tests.rtl.unit_driver import set_together, simulate

LATE = replace(TINY, name="late", deep_pipeline=True)
ODD_SIZE = Config(name="odd_size", rows=4, cols=4, scratchpad_kib=3, accumulator_depth=16, bus_bytes=4, requant_lanes=4)
"""A number of words that is not a power of two."""

PORTS = ("feed", "drain", "store", "write", "load")
Place = tuple[int, int]


@dataclass
class Access:
    """A window of one bank: first word; for reads whether the second matters, for writes data and mask."""

    bank: int
    word: int
    wide: bool
    data: int
    mask: int

    @property
    def words(self) -> set[Place]:
        """Both words of the window, as (bank, word)."""
        return {(self.bank, self.word), (self.bank, self.word + 1)}

    def memories(self, first: bool, second: bool) -> set[Place]:
        """The memories, as (bank, parity), of those words of the window that matter."""
        return {(self.bank, (self.word + n) % 2) for n, matters in enumerate((first, second)) if matters}


@dataclass
class Cycle:
    """What the ports do in one cycle."""

    feed: list[Access | None] = field(default_factory=list["Access | None"])
    drain: Access | None = None
    store: Access | None = None
    write: Access | None = None
    load: Access | None = None


@dataclass
class Traffic:
    """Makes random accesses, keeps the bytes that the scratchpad must hold, and checks what it answers.

    Words come from a small part at the end of the banks, so that accesses meet; `beyond`: how likely they pass the end.
    counts: how often each port was served or had to wait.
    """

    dut: Scratchpad
    config: Config
    rng: random.Random
    beyond: float
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.banks = [bytearray(self.config.bank_words * self.config.rows) for _ in range(BANKS)]
        self.expected: deque[dict[str, Any]] = deque({} for _ in range(window_latency(self.config)))
        self.fed: deque[list[bytes | None]] = deque([] for _ in range(feed_latency(self.config)))
        self.errors: dict[str, bool] = {}
        self.cycle = Cycle()
        self.just_written = set[Place]()

    def count(self, event: str, times: int = 1) -> None:
        self.counts[event] = self.counts.get(event, 0) + times

    def access(self, avoid: set[Place]) -> Access | None:
        """A random access, half of the time, if it touches no word of `avoid`."""
        words, rows, rng = self.config.bank_words, self.config.rows, self.rng
        past = rng.random() < self.beyond
        access = Access(
            bank=rng.randrange(BANKS),
            word=words + rng.choice([-1, -1, 0, rng.randint(1, 1000)]) if past else words - rng.randint(2, 12),
            wide=rng.random() < 0.5,
            data=rng.getrandbits(16 * rows),
            mask=rng.choice([rng.getrandbits(2 * rows), rng.getrandbits(rows), (1 << 2 * rows) - 1]),
        )
        return None if rng.random() < 0.5 or access.words & avoid else access

    def choose(self) -> None:
        """The accesses of the next cycle; those not yet taken stay. Nobody reads a word that is written, or was written
        in the cycle before.
        """
        old, new = self.cycle, Cycle()
        new.load = old.load
        written = self.just_written | (new.load.words if new.load else set[Place]())
        new.drain = old.drain or self.access(written)
        new.store = old.store or self.access(written)
        new.feed = [self.access(written) for _ in range(BANKS)]
        for bank, access in enumerate(new.feed):
            if access is not None:
                access.bank = bank
                if access.words & written:
                    new.feed[bank] = None
        read = {place for access in (new.drain, new.store, *new.feed) if access for place in access.words}
        new.load = new.load or self.access(read)
        new.write = self.access(read | (new.load.words if new.load else set[Place]()))
        self.cycle = new

    def drive(self, ctx: SimulatorContext) -> None:
        dut, cycle = self.dut, self.cycle
        feed = list(enumerate(cycle.feed))
        memories = {memory for _, access in feed if access for memory in access.memories(True, access.wide)}
        values: list[tuple[Any, int]] = [
            (dut.feed.memories, sum(1 << 2 * bank + parity for bank, parity in memories)),
            *((dut.feed.word[bank], access.word) for bank, access in feed if access),
        ]
        for request, access in ((dut.drain_read.request, cycle.drain), (dut.store_read.request, cycle.store)):
            values.append((request.valid, access is not None))
            if access:
                payload = request.payload
                values += [(payload.bank, access.bank), (payload.word, access.word), (payload.wide, access.wide)]
        for write, access in ((dut.drain_write, cycle.write), (dut.load_write, cycle.load)):
            values.append((write.valid, access is not None))
            if access:
                payload = write.payload
                values += [(payload.bank, access.bank), (payload.word, access.word), (payload.data, access.data)]
        if cycle.write:
            payload = dut.drain_write.payload
            values += [(payload.mask, cycle.write.mask), (payload.wide, cycle.write.mask >> self.config.rows != 0)]
        set_together(ctx, values)

    def check(self, sample: tuple[Any, ...]) -> None:
        """Compare what the scratchpad gives in this cycle with what it must, and note what follows from it."""
        ready, errors, answers = sample[:4], sample[4:9], sample[9:]
        assert dict(zip(PORTS, errors, strict=True)) == {name: self.errors.get(name, False) for name in PORTS}
        self.errors = {}
        self.check_data(self.expected.popleft() | {"feed": self.fed.popleft()}, *answers)
        taken = self.take_reads(*ready[:2])
        self.fed.append(taken.pop("feed"))
        self.expected.append(taken)
        self.take_writes(*ready[2:])

    def check_data(
        self, expected: dict[str, Any], drain_valid: int, drain: int, store_valid: int, store: int, feed: int
    ):
        """Compare delivered data with `expected`, in which None stands for anything."""
        size = 2 * self.config.rows
        assert (drain_valid, store_valid) == ("drain" in expected, "store" in expected)
        for name, data in (("drain", drain), ("store", store)):
            wanted = expected.get(name)
            assert wanted is None or data.to_bytes(size, "little")[: len(wanted)] == wanted, name
        for bank, wanted in enumerate(expected.get("feed", [])):
            data = feed.to_bytes(BANKS * size, "little")[bank * size :]
            assert wanted is None or data[: len(wanted)] == wanted, f"feed, bank {bank}"

    def read(self, port: str, access: Access) -> bytes | None:
        """What a read gives; None and an error when it passes the end."""
        if access.word + access.wide >= self.config.bank_words:
            self.errors[port] = True
            return None
        start = access.word * self.config.rows
        return bytes(self.banks[access.bank][start : start + (1 + access.wide) * self.config.rows])

    def take_reads(self, drain_ready: int, store_ready: int) -> dict[str, Any]:
        """What must be delivered later for the reads of this cycle."""
        cycle = self.cycle
        taken: dict[str, Any] = {"feed": [access and self.read("feed", access) for access in cycle.feed]}
        busy = {memory for access in cycle.feed if access for memory in access.memories(True, access.wide)}
        self.count("feed", sum(access is not None for access in cycle.feed))
        for name, access, ready in (("drain", cycle.drain, drain_ready), ("store", cycle.store, store_ready)):
            if access is None:
                continue
            needs = access.memories(True, access.wide)
            assert ready == (not needs & busy), f"{name} must wait exactly when a memory it needs is busy"
            busy |= needs
            self.count(name if ready else f"{name} waits")
            if ready:
                taken[name] = self.read(name, access)
                setattr(cycle, name, None)
        return taken

    def write(self, port: str, access: Access, mask: int) -> None:
        """Change the bytes in `mask`; none, and an error, when the write passes the end."""
        rows = self.config.rows
        if access.word + (mask >> rows != 0) >= self.config.bank_words:
            self.errors[port] = True
            return
        for place in range(2 * rows):
            if mask >> place & 1:
                self.banks[access.bank][access.word * rows + place] = access.data >> 8 * place & 0xFF

    def take_writes(self, write_ready: int, load_ready: int) -> None:
        cycle, rows = self.cycle, self.config.rows
        self.just_written = cycle.write.words if cycle.write else set[Place]()
        if cycle.load and load_ready:
            self.just_written |= cycle.load.words
        assert write_ready
        busy = set[Place]()
        first = (1 << rows) - 1
        if cycle.write:
            busy = cycle.write.memories(True, bool(cycle.write.mask >> rows))
            self.count("write")
            self.write("write", cycle.write, cycle.write.mask)
        if cycle.load:
            assert load_ready == (not cycle.load.memories(True, False) & busy)
            self.count("load" if load_ready else "load waits")
            if load_ready:
                self.write("load", cycle.load, first)
                cycle.load = None


@pytest.mark.parametrize("beyond", [0.0, 0.1])
@pytest.mark.parametrize("config", [FORMAL, TINY, ODD_SIZE, MID, LATE], ids=lambda config: config.name)
def test_holds_bytes(config: Config, beyond: float):
    dut = Scratchpad(config)
    traffic = Traffic(dut, config, random.Random(20250102), beyond)
    sampled = (
        *(dut.drain_read.request.ready, dut.store_read.request.ready, dut.drain_write.ready, dut.load_write.ready),
        *(dut.feed_error, dut.drain_read_error, dut.store_read_error, dut.drain_write_error, dut.load_write_error),
        *(dut.drain_read.data_valid, Value.cast(dut.drain_read.data)),
        *(dut.store_read.data_valid, Value.cast(dut.store_read.data), Value.cast(dut.feed.data)),
    )

    async def main(ctx: SimulatorContext):
        for _ in range(1500):
            traffic.choose()
            traffic.drive(ctx)
            _, _, *sample = await ctx.tick().sample(*sampled)
            traffic.check(tuple(sample))

    simulate(dut, main)
    assert len(traffic.counts) == 8
    assert all(count > 20 for count in traffic.counts.values()), traffic.counts


@pytest.mark.parametrize("config", [TINY, LATE], ids=lambda config: config.name)
def test_a_store_is_served_every_cycle_when_it_is_alone(config: Config):
    dut = Scratchpad(config)
    latency = window_latency(config)
    answers: list[int] = []

    async def main(ctx: SimulatorContext):
        for cycle in range(40):
            ctx.set(dut.store_read.request.valid, cycle < 32)
            ctx.set(dut.store_read.request.payload, {"bank": 0, "word": cycle, "wide": 0})
            _, _, ready, valid = await ctx.tick().sample(dut.store_read.request.ready, dut.store_read.data_valid)
            assert ready
            answers.append(valid)

    simulate(dut, main)
    assert answers == [0] * latency + [1] * 32 + [0] * (8 - latency)


@pytest.mark.parametrize("config", [TINY, LATE], ids=lambda config: config.name)
def test_a_read_sees_what_was_written_two_cycles_before(config: Config):
    dut = Scratchpad(config)
    answers: list[int] = []

    async def main(ctx: SimulatorContext):
        payload = dut.load_write.payload
        set_together(ctx, [(dut.load_write.valid, 1), (payload.word, 5), (payload.data, 0x04030201)])
        await ctx.tick()
        ctx.set(dut.load_write.valid, 0)
        await ctx.tick()
        set_together(ctx, [(dut.feed.memories, 0b10), (dut.feed.word[0], 5)])
        await ctx.tick().repeat(feed_latency(config))
        answers.append(ctx.get(Value.cast(dut.feed.data[0])) & 0xFFFFFFFF)

    simulate(dut, main)
    assert answers == [0x04030201]


def test_halt_takes_writes_and_does_not_perform_them():
    dut = Scratchpad(TINY)
    words: list[int] = []

    async def main(ctx: SimulatorContext):
        load, drain = dut.load_write, dut.drain_write
        set_together(ctx, [(dut.halt, 1), (load.valid, 1), (load.payload.data, 0x01010101)])
        set_together(
            ctx, [(drain.valid, 1), (drain.payload.bank, 1), (drain.payload.mask, 0xFF), (drain.payload.wide, 1)]
        )
        set_together(ctx, [(drain.payload.data, 0x0202020202020202)])
        _, _, *ready = await ctx.tick().sample(load.ready, drain.ready)
        assert ready == [1, 1]
        set_together(ctx, [(load.valid, 0), (drain.valid, 0)])
        await ctx.tick()
        set_together(ctx, [(dut.feed.memories, 0b1111)])
        await ctx.tick().repeat(feed_latency(TINY))
        words.extend(ctx.get(Value.cast(dut.feed.data[bank])) for bank in range(2))

    simulate(dut, main)
    assert words == [0, 0]


def test_maps_to_synchronous_memories_with_byte_enables():
    text = verilog.convert(Scratchpad(TINY), name="scratchpad")
    for bank in range(BANKS):
        for parity in ("even", "odd"):
            name = f"bank_{bank}_{parity}"
            assert f"reg [31:0] {name} [511:0];" in text
            # One write port of four bytes, and one read port, whose output is a register.
            assert len(re.findall(rf"{name}\[.*\]\[\d+:\d+\] <= ", text)) == 4
            assert len(re.findall(rf"_\d+_ <= {name}\[", text)) == 1
            assert not re.search(rf"assign .* = {name}\[", text)

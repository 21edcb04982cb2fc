"""The scratchpad against an array of bytes, with random traffic on all five ports at once."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth.back import verilog
from amaranth.sim import SimulatorContext

from loomwork.arch.config import BANKS, BASE, FORMAL, MID, TINY, Config
from loomwork.rtl.ports import SCRATCHPAD_LATENCY
from loomwork.rtl.scratchpad import Scratchpad
from tests.rtl.unit_driver import simulate

ODD_SIZE = Config(name="odd_size", rows=4, cols=4, scratchpad_kib=3, accumulator_depth=16, bus_bytes=4, requant_lanes=4)
"""A number of words that is not a power of two."""


@dataclass
class Access:
    """A window of one bank: first word, whether the second matters, data and mask of a write."""

    bank: int
    word: int
    wide: bool = False
    data: int = 0
    mask: int = 0


@dataclass
class Traffic:
    """Makes random accesses, keeps the bytes that the scratchpad must hold, and says what each cycle must give.

    Random words come from a small part at the end of the banks, so that accesses meet; `beyond` is the probability of
    one behind the end.
    """

    config: Config
    rng: random.Random
    beyond: float
    banks: list[bytearray] = field(default_factory=list[bytearray])

    def __post_init__(self) -> None:
        size = self.config.bank_words * self.config.rows
        self.banks = [bytearray(size) for _ in range(BANKS)]

    def access(self, avoid: set[tuple[int, int]]) -> Access | None:
        """A random access that touches no word of `avoid`; None when there is none at hand."""
        words, rows = self.config.bank_words, self.config.rows
        for _ in range(10):
            access = Access(
                bank=self.rng.randrange(BANKS),
                word=words + self.rng.randrange(1000)
                if self.rng.random() < self.beyond
                else words - self.rng.randint(1, 12),
                wide=self.rng.random() < 0.5,
                data=self.rng.getrandbits(16 * rows),
                mask=self.rng.choice([self.rng.getrandbits(2 * rows), self.rng.getrandbits(rows), (1 << 2 * rows) - 1]),
            )
            if access.wide and access.word == words - 1 and self.beyond == 0:
                continue
            if access.mask >> rows and access.word == words - 1 and self.beyond == 0:
                continue
            if not {(access.bank, access.word), (access.bank, access.word + 1)} & avoid:
                return access
        return None

    def is_beyond(self, access: Access, second: bool) -> bool:
        return access.word + second >= self.config.bank_words

    def read(self, access: Access) -> bytes:
        start = access.word * self.config.rows
        return bytes(self.banks[access.bank][start : start + (1 + access.wide) * self.config.rows])

    def write(self, access: Access) -> None:
        rows = self.config.rows
        for place in range(2 * rows):
            if access.mask >> place & 1:
                self.banks[access.bank][access.word * rows + place] = access.data >> 8 * place & 0xFF


def memories(access: Access, second: bool) -> set[tuple[int, int]]:
    """The memories (bank, parity) that an access needs."""
    return {(access.bank, (access.word + number) % 2) for number in range(1 + second)}


def touched(access: Access) -> set[tuple[int, int]]:
    return {(access.bank, access.word), (access.bank, access.word + 1)}


async def run_traffic(ctx: SimulatorContext, dut: Scratchpad, traffic: Traffic, cycles: int) -> dict[str, int]:
    """Drive all ports for some cycles and check everything; returns how often what happened."""
    rng, config = traffic.rng, traffic.config
    rows = config.rows
    second_mask = (1 << rows) - 1 << rows
    counts = dict.fromkeys(["feed", "drain", "store", "write", "load", "drain_waits", "store_waits", "load_waits"], 0)
    pending: dict[str, Access | None] = {"drain": None, "store": None, "load": None}
    expected: deque[dict[str, Any]] = deque({} for _ in range(SCRATCHPAD_LATENCY))
    errors: dict[str, bool] = {}
    for _ in range(cycles):
        # Accesses of this cycle: nobody reads a word that is written.
        written = touched(pending["load"]) if pending["load"] else set[tuple[int, int]]()
        drain_write = None
        reading = set[tuple[int, int]]()
        for name in ("drain", "store"):
            if pending[name] is None and rng.random() < 0.6:
                pending[name] = traffic.access(written)
            access = pending[name]
            reading |= touched(access) if access else set()
        feed: list[Access | None] = []
        for bank in range(BANKS):
            access = traffic.access(written) if rng.random() < 0.5 else None
            feed.append(None if access is None else Access(bank, access.word, access.wide))
            if access is not None and touched(Access(bank, access.word)) & written:
                feed[-1] = None
            if feed[-1] is not None:
                reading |= touched(feed[-1])
        if pending["load"] is None and rng.random() < 0.6:
            pending["load"] = traffic.access(reading)
        load = pending["load"]
        if rng.random() < 0.5:
            drain_write = traffic.access(reading | (touched(load) if load else set()))

        set_feed(ctx, dut, feed)
        for name, port in (("drain", dut.drain_read), ("store", dut.store_read)):
            access = pending[name]
            ctx.set(port.request.valid, access is not None)
            if access is not None:
                ctx.set(port.request.payload, {"bank": access.bank, "word": access.word, "wide": access.wide})
        ctx.set(dut.drain_write.valid, drain_write is not None)
        if drain_write is not None:
            payload = dut.drain_write.payload
            ctx.set(payload.bank, drain_write.bank)
            ctx.set(payload.word, drain_write.word)
            ctx.set(payload.data.as_value(), drain_write.data)
            ctx.set(payload.mask, drain_write.mask)
        ctx.set(dut.load_write.valid, load is not None)
        if load is not None:
            load.mask = (1 << rows) - 1
            ctx.set(dut.load_write.payload.bank, load.bank)
            ctx.set(dut.load_write.payload.word, load.word)
            ctx.set(dut.load_write.payload.data.as_value(), load.data & (1 << 8 * rows) - 1)

        sample = await ctx.tick().sample(
            *(dut.drain_read.request.ready, dut.store_read.request.ready),
            *(dut.drain_write.ready, dut.load_write.ready),
            *(dut.drain_read.data_valid, dut.drain_read.data.as_value()),
            *(dut.store_read.data_valid, dut.store_read.data.as_value(), dut.feed.data.as_value()),
            *(dut.feed_error, dut.drain_read_error, dut.store_read_error, dut.drain_write_error, dut.load_write_error),
        )
        drain_ready, store_ready, write_ready, load_ready = sample[2:6]
        assert write_ready
        # The errors of the accesses of the cycle before.
        assert dict(zip(("feed", "drain", "store", "write", "load"), map(bool, sample[11:16]), strict=True)) == {
            name: errors.get(name, False) for name in ("feed", "drain", "store", "write", "load")
        }
        errors = {}
        # The data of reads that were taken SCRATCHPAD_LATENCY cycles ago.
        check_data(config, expected.popleft(), sample)

        # What must be taken now.
        taken: dict[str, Any] = {}
        busy = {memory for access in feed if access is not None for memory in memories(access, access.wide)}
        for name, ready in (("drain", drain_ready), ("store", store_ready)):
            access = pending[name]
            if access is None:
                continue
            needs = memories(access, access.wide)
            assert ready == (not needs & busy), f"{name} must wait exactly when a memory it needs is busy"
            busy |= needs
            counts[name if ready else f"{name}_waits"] += 1
            if ready:
                beyond = traffic.is_beyond(access, access.wide)
                errors[name] = beyond
                taken[name] = None if beyond else traffic.read(access)
                pending[name] = None
        taken["feed"] = [
            None if access is None or traffic.is_beyond(access, access.wide) else traffic.read(access)
            for access in feed
        ]
        errors["feed"] = any(access is not None and traffic.is_beyond(access, access.wide) for access in feed)
        counts["feed"] += sum(access is not None for access in feed)
        expected.append(taken)

        write_busy = set[tuple[int, int]]()
        if drain_write is not None:
            second = bool(drain_write.mask & second_mask)
            errors["write"] = traffic.is_beyond(drain_write, second)
            write_busy = used_by_write(drain_write, rows)
            counts["write"] += 1
            if not errors["write"]:
                traffic.write(drain_write)
        if load is not None:
            assert load_ready == (not memories(load, False) & write_busy)
            counts["load" if load_ready else "load_waits"] += 1
            if load_ready:
                errors["load"] = traffic.is_beyond(load, False)
                if not errors["load"]:
                    traffic.write(load)
                pending["load"] = None
    return counts


def used_by_write(access: Access, rows: int) -> set[tuple[int, int]]:
    """Memories of which a masked write changes a byte."""
    halves = access.mask & (1 << rows) - 1, access.mask >> rows
    return {(access.bank, (access.word + number) % 2) for number, half in enumerate(halves) if half}


def set_feed(ctx: SimulatorContext, dut: Scratchpad, feed: Sequence[Access | None]) -> None:
    ctx.set(dut.feed.enable, sum(1 << bank for bank, access in enumerate(feed) if access is not None))
    ctx.set(dut.feed.wide, sum(1 << bank for bank, access in enumerate(feed) if access is not None and access.wide))
    for bank, access in enumerate(feed):
        if access is not None:
            ctx.set(dut.feed.word[bank], access.word)


def check_data(config: Config, expected: dict[str, Any], sample: Any) -> None:
    """Compare delivered data with what must come; None stands for anything."""
    rows = config.rows
    for name, valid, data in (("drain", *sample[6:8]), ("store", *sample[8:10])):
        assert valid == (name in expected)
        if expected.get(name) is not None:
            assert data.to_bytes(2 * rows, "little")[: len(expected[name])] == expected[name], name
    feed = sample[10].to_bytes(BANKS * 2 * rows, "little")
    for bank, wanted in enumerate(expected.get("feed", [])):
        if wanted is not None:
            assert feed[2 * rows * bank :][: len(wanted)] == wanted, f"feed, bank {bank}"


@pytest.mark.parametrize("beyond", [0.0, 0.1])
@pytest.mark.parametrize("config", [FORMAL, TINY, ODD_SIZE, MID], ids=lambda config: config.name)
def test_holds_bytes(config: Config, beyond: float):
    dut = Scratchpad(config)
    counts: dict[str, int] = {}

    async def main(ctx: SimulatorContext):
        traffic = Traffic(config, random.Random(20250102), beyond)
        counts.update(await run_traffic(ctx, dut, traffic, 1500))

    simulate(dut, main)
    assert all(count > 50 for count in counts.values()), counts


def test_a_store_is_served_every_cycle_when_it_is_alone():
    dut = Scratchpad(TINY)
    answers: list[int] = []

    async def main(ctx: SimulatorContext):
        for cycle in range(40):
            ctx.set(dut.store_read.request.valid, cycle < 32)
            ctx.set(dut.store_read.request.payload, {"bank": 0, "word": cycle, "wide": 0})
            _, _, ready, valid = await ctx.tick().sample(dut.store_read.request.ready, dut.store_read.data_valid)
            assert ready
            answers.append(valid)

    simulate(dut, main)
    assert answers == [0] * SCRATCHPAD_LATENCY + [1] * 32 + [0] * (8 - SCRATCHPAD_LATENCY)


def test_a_read_sees_what_was_written_in_the_cycle_before():
    dut = Scratchpad(TINY)
    answers: list[int] = []

    async def main(ctx: SimulatorContext):
        ctx.set(dut.load_write.valid, 1)
        ctx.set(dut.load_write.payload.word, 5)
        ctx.set(dut.load_write.payload.data.as_value(), 0x04030201)
        await ctx.tick()
        ctx.set(dut.load_write.valid, 0)
        ctx.set(dut.feed.enable, 1)
        ctx.set(dut.feed.word[0], 5)
        await ctx.tick().repeat(SCRATCHPAD_LATENCY)
        answers.append(ctx.get(dut.feed.data[0].as_value()) & 0xFFFFFFFF)

    simulate(dut, main)
    assert answers == [0x04030201]


def test_halt_takes_writes_and_does_not_perform_them():
    dut = Scratchpad(TINY)
    words: list[int] = []

    async def main(ctx: SimulatorContext):
        ctx.set(dut.halt, 1)
        ctx.set(dut.load_write.valid, 1)
        ctx.set(dut.load_write.payload.data.as_value(), 0x01010101)
        ctx.set(dut.drain_write.valid, 1)
        ctx.set(dut.drain_write.payload.bank, 1)
        ctx.set(dut.drain_write.payload.mask, 0xFF)
        ctx.set(dut.drain_write.payload.data.as_value(), 0x0202020202020202)
        _, _, *ready = await ctx.tick().sample(dut.load_write.ready, dut.drain_write.ready)
        assert ready == [1, 1]
        ctx.set(dut.load_write.valid, 0)
        ctx.set(dut.drain_write.valid, 0)
        ctx.set(dut.feed.enable, 3)
        ctx.set(dut.feed.wide, 3)
        await ctx.tick().repeat(SCRATCHPAD_LATENCY)
        words.extend(ctx.get(dut.feed.data[bank].as_value()) for bank in range(2))

    simulate(dut, main)
    assert words == [0, 0]


def test_maps_to_synchronous_memories():
    text = verilog.convert(Scratchpad(BASE), name="scratchpad")
    assert text.count("reg [127:0] memory [2047:0];") == 2 * BANKS
    # A synchronous read port: a registered output, as block RAM has it.
    assert text.count("_0_ <= memory[") == 2 * BANKS

# SPDX-License-Identifier: Apache-2.0
"""An AXI4 memory for the Amaranth simulator that checks the rules of the bus, and configurations to try units with."""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from amaranth.sim import SimulatorContext

from loomwork.arch.command import Command
from loomwork.arch.config import BASE, FORMAL, MID, SMALL, TINY, Config
from loomwork.arch.isa import Window
from loomwork.rtl.axi import BURST_INCR
from tests.rtl.unit_driver import set_together

NARROW_BUS = replace(BASE, name="narrow_bus", bus_bytes=4)
CONFIGS = (FORMAL, TINY, SMALL, MID, NARROW_BUS)
"""2x2, 4x4, 8x8, 16x8 with a bus as wide, 16x16 with a bus of 4 bytes."""

OKAY, SLVERR, DECERR = 0, 2, 3


@dataclass
class Region:
    """One window: absolute address of its first byte and its contents."""

    base: int
    contents: bytearray

    def holds(self, address: int, length: int) -> bool:
        return self.base <= address and address + length <= self.base + len(self.contents)


def make_windows(rng: random.Random, size: int) -> dict[Window, Region]:
    """All windows with `size` random bytes each, apart from each other, at addresses beyond 16 bits."""
    return {window: Region(0x30000 + 0x10000 * window, bytearray(rng.randbytes(size))) for window in Window}


def set_windows(ctx: SimulatorContext, port: Any, regions: dict[Window, Region]) -> None:
    """Put bases and sizes on the `windows` port of a unit."""
    for window, region in regions.items():
        ctx.set(port[window].base, region.base)
        ctx.set(port[window].size, len(region.contents))


def bursts_of(transfer: Command, config: Config, first: int, longest: int) -> list[tuple[int, int]]:
    """The bursts of a LOAD or STORE, as (first byte, bytes): rows that lie end to end are read as one.

    first: address of the window. longest: bytes of the longest burst; bursts end at its multiples.
    """
    row_bytes = transfer["words"] * config.rows
    starts = [first + transfer["offset"] + row * transfer["row_stride"] for row in range(transfer["rows"])]
    runs: list[list[int]] = []
    for start in starts:
        if runs and transfer["row_stride"] == row_bytes:
            runs[-1][1] += row_bytes
        else:
            runs.append([start, start + row_bytes])
    bursts: list[tuple[int, int]] = []
    for start, end in runs:
        while start < end:
            stop = min(end, (start // longest + 1) * longest)
            bursts.append((start, stop - start))
            start = stop
    return bursts


@dataclass
class Burst:
    """A burst on its way: first byte, beats, cycle from which its data or its response may come."""

    identity: int
    address: int
    beats: int
    due: int
    moved: int = 0


@dataclass
class AxiMemory:
    """Serves the read or the write channels (or both) of a master, and asserts that the master keeps to AXI4.

    latency: cycles from an address to its first beat, and from the last beat to the response. stall: probability of a
    cycle in which a channel pauses. faults: error responses by absolute address of a beat (writes: of a burst).
    After a run: reads, writes: (first byte, bytes) of every burst; beats: data beats moved.
    """

    config: Config
    regions: dict[Window, Region]
    rng: random.Random
    latency: int = 40
    stall: float = 0.0
    faults: dict[int, int] = field(default_factory=dict[int, int])
    reads: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    writes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    read_beats: int = 0
    write_beats: int = 0
    written: set[int] = field(default_factory=set[int])
    outstanding: int = 0

    def _region(self, address: int, length: int) -> Region:
        for region in self.regions.values():
            if region.holds(address, length):
                return region
        raise AssertionError(f"burst of {length} bytes at {address:#x} lies outside the windows")

    def _check_burst(self, address: int, length: int, size: int, burst: int) -> int:
        """Assert what holds for every burst; returns the number of its bytes."""
        bus_bytes = self.config.bus_bytes
        count = (length + 1) * bus_bytes
        assert burst == BURST_INCR
        assert 1 << size == bus_bytes
        assert length + 1 <= 64
        assert count <= 1024
        assert address % bus_bytes == 0
        assert address // 4096 == (address + count - 1) // 4096, f"burst at {address:#x} crosses a 4 KiB boundary"
        self._region(address, count)
        return count

    def _goes(self) -> bool:
        return self.rng.random() >= self.stall

    async def serve_reads(self, ctx: SimulatorContext, axi: Any) -> None:
        """Background testbench on an `Axi4Read`. Bursts with different IDs are interleaved beat by beat."""
        queues: dict[int, deque[Burst]] = {}
        bus_bytes = self.config.bus_bytes
        now = 0
        held = None
        while True:
            values = [(axi.arready, self._goes())]
            due = [queue[0] for queue in queues.values() if queue and queue[0].due <= now]
            burst = self.rng.choice(due) if due and self._goes() else None
            values.append((axi.rvalid, burst is not None))
            if burst is not None:
                address = burst.address + burst.moved * bus_bytes
                region = self._region(address, bus_bytes)
                place = address - region.base
                word = int.from_bytes(region.contents[place : place + bus_bytes], "little")
                values += [(axi.rid, burst.identity), (axi.rdata, word), (axi.rresp, self.faults.get(address, OKAY))]
                values.append((axi.rlast, burst.moved == burst.beats - 1))
            set_together(ctx, values)
            _, _, valid, ready, identity, address, length, size, kind, rready = await ctx.tick().sample(
                axi.arvalid, axi.arready, axi.arid, axi.araddr, axi.arlen, axi.arsize, axi.arburst, axi.rready
            )
            assert rready, "the master must always take read data"
            request = (identity, address, length)
            assert held is None or (valid and request == held), "ARVALID and its payload must stay until ARREADY"
            held = request if valid and not ready else None
            if burst is not None:
                burst.moved += 1
                self.read_beats += 1
                if burst.moved == burst.beats:
                    queues[burst.identity].popleft()
                    self.outstanding -= 1
            if valid and ready:
                self.reads.append((address, self._check_burst(address, length, size, kind)))
                queue = queues.setdefault(identity, deque())
                queue.append(Burst(identity, address, length + 1, now + self.latency))
                self.outstanding += 1
            now += 1

    async def serve_writes(self, ctx: SimulatorContext, axi: Any) -> None:
        """Background testbench on an `Axi4Write`. Data may come before their address; responses come in order."""
        bus_bytes = self.config.bus_bytes
        addressed: deque[Burst] = deque()
        beats: deque[tuple[int, bool]] = deque()
        answers: deque[Burst] = deque()
        now = 0
        held_address = held_data = None
        while True:
            values = [(axi.awready, self._goes()), (axi.wready, self._goes())]
            answering = bool(answers) and answers[0].due <= now and self._goes()
            values.append((axi.bvalid, answering))
            if answering:
                values += [(axi.bid, answers[0].identity), (axi.bresp, self.faults.get(answers[0].address, OKAY))]
            set_together(ctx, values)
            sample = await ctx.tick().sample(
                *(axi.awvalid, axi.awready, axi.awid, axi.awaddr, axi.awlen, axi.awsize, axi.awburst),
                *(axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast, axi.bready),
            )
            _, _, aw_valid, aw_ready, identity, address, length, size, kind = sample[:9]
            w_valid, w_ready, data, strobe, last, b_ready = sample[9:]
            assert b_ready, "the master must always take responses"
            assert held_address in (None, (address, length)), "AWVALID and its payload must stay until AWREADY"
            assert held_data in (None, (data, last)), "WVALID and its payload must stay until WREADY"
            held_address = (address, length) if aw_valid and not aw_ready else None
            held_data = (data, last) if w_valid and not w_ready else None
            if answering:
                answers.popleft()
                self.outstanding -= 1
            if aw_valid and aw_ready:
                self.writes.append((address, self._check_burst(address, length, size, kind)))
                addressed.append(Burst(identity, address, length + 1, now))
                self.outstanding += 1
            if w_valid and w_ready:
                assert strobe == (1 << bus_bytes) - 1
                beats.append((data, last))
                self.write_beats += 1
            while addressed and beats:
                burst = addressed[0]
                data, last = beats.popleft()
                place = burst.address + burst.moved * bus_bytes
                region = self._region(place, bus_bytes)
                assert not self.written & set(range(place, place + bus_bytes)), f"{place:#x} is written twice"
                self.written.update(range(place, place + bus_bytes))
                start = place - region.base
                region.contents[start : start + bus_bytes] = data.to_bytes(bus_bytes, "little")
                burst.moved += 1
                assert last == (burst.moved == burst.beats), "WLAST must mark the last beat"
                if burst.moved == burst.beats:
                    burst.due = now + self.latency
                    answers.append(addressed.popleft())
            now += 1

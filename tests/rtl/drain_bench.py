# SPDX-License-Identifier: Apache-2.0
"""The surroundings of a DRAIN unit in simulation: scratchpad, accumulators, parameter stream, commands."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from numpy.typing import NDArray

from loomwork.arch.command import Command, encode
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import Params
from loomwork.rtl.drain import Drain
from loomwork.rtl.ports import ACCUMULATOR_LATENCY, COMMANDS_IN_UNIT, MEMORIES, PARITIES, window_latency
from tests.rtl.drain_model import BlockParameters

FINISHED_BLOCKS = 2
"""Blocks that can wait for the drain: the halves of the accumulators."""


@dataclass
class DrainBench:
    """Runs commands on a DRAIN unit, with or without obstacles.

    memory: `[BANKS, bytes of a bank] uint8`, read and written. blocks: finished blocks of the accumulators, in order.
    parameters: those of each block that has any, with what part of them comes.
    patience: chance that a request is taken or a thing that is expected arrives, in each cycle; 1 = always.
    on_done: called with the number of finished commands, whenever one is. halt_after: cycle from which `halt` is 1.
    blocks_after: cycle before which no block is finished. write_patience: as `patience`, of writes alone; writes_after:
    cycle before which none is taken.
    made: for each block, how many pixels the array makes, one by one in a single pass, so that those below `progress`
    may be read meanwhile; 0, or no entry: it is finished all at once, as by the last of several passes.

    After `run`: cycles, finish (cycle of each done), whole (cycle from which each block is finished), error, the sums
    of the two counters, and the last cycle in which the scratchpad was read or written.
    """

    config: Config
    memory: NDArray[np.uint8]
    rng: random.Random
    blocks: Sequence[NDArray[np.int64]] = ()
    parameters: Sequence[tuple[BlockParameters, Params]] = ()
    patience: float = 1.0
    on_done: Callable[[int], None] = lambda finished: None
    halt_after: int | None = None
    blocks_after: int = 0
    write_patience: float = 1.0
    writes_after: int = 0
    made: Sequence[int] = ()
    finish: list[int] = field(default_factory=list[int])
    whole: list[int] = field(default_factory=list[int])
    cycles: int = 0
    error: int = 0
    waited_accumulator: int = 0
    waited_bank: int = 0
    last_access: int = -1

    def run(self, commands: Sequence[Command], limit: int = 20_000) -> None:
        """Run until every command is done or one reports an error."""
        self._commands = deque(int.from_bytes(encode(command), "little") for command in commands)
        self._words = deque(
            (word, index, index == len(stream) - 1)
            for block, params in self.parameters
            for stream in [block.words(params)]
            for index, word in enumerate(stream)
        )
        self._word_arrived = False
        self._blocks = deque(self.blocks)
        self._finished_blocks = self._progress = self._unanswered = 0
        self._reads = deque[int | None]([None] * window_latency(self.config))
        self._pixels = deque[int | None]([None] * ACCUMULATOR_LATENCY)
        self._refused: int | None = None
        self._fed = 0  # memories that the feed takes, in this cycle and in the next one
        self._next_fed = 0

        dut = Drain(self.config)
        simulator = Simulator(dut)
        simulator.add_clock(1e-8)

        async def bench(ctx: SimulatorContext) -> None:
            while len(self.finish) < len(commands) and not self.error:
                assert self.cycles < limit, f"{len(self.finish)} of {len(commands)} commands done after {limit} cycles"
                self._offer(ctx, dut)
                self._take_inputs(ctx, dut)
                self._take_read(ctx, dut)
                self._take_pixel(ctx, dut)
                self._take_write(ctx, dut)
                self._observe(ctx, dut)
                self._fill(ctx, dut)
                await ctx.tick()
                self.cycles += 1
            if not self.error:
                await self._check_end(ctx, dut)

        simulator.add_testbench(bench)
        simulator.run()

    def _luck(self) -> bool:
        return self.patience >= 1 or self.rng.random() < self.patience

    def _data(self, found: int | None, count: int) -> int:
        """What was found, or noise where nothing was asked for."""
        return int.from_bytes(self.rng.randbytes(count), "little") if found is None else found

    def _offer(self, ctx: SimulatorContext, dut: Drain) -> None:
        """Set all inputs of this cycle."""
        ctx.set(dut.halt, self._halted)
        ctx.set(dut.unit.command.valid, bool(self._commands) and self._unanswered < COMMANDS_IN_UNIT)
        if self._commands:
            ctx.set(dut.unit.command.payload, self._commands[0])
        ctx.set(dut.accumulator.ready, self._finished_blocks > 0)
        ctx.set(dut.accumulator.progress, self._progress)
        self._word_arrived = bool(self._words) and (self._word_arrived or self._luck())
        ctx.set(dut.params.valid, self._word_arrived)
        if self._words:
            word, index, last = self._words[0]
            ctx.set(dut.params.payload, {"word": word, "index": index, "last": last})
        ctx.set(dut.read.request.ready, self._luck())
        self._fed, self._next_fed = self._next_fed, 0 if self._luck() else self.rng.getrandbits(MEMORIES)
        ctx.set(dut.next_memories, self._next_fed)
        writes = self.cycles >= self.writes_after and self.rng.random() < self.write_patience
        ctx.set(dut.write.ready, self._luck() and writes)
        ctx.set(dut.read.data.as_value(), self._data(self._reads.popleft(), 2 * self.config.rows))
        ctx.set(dut.accumulator.data.as_value(), self._data(self._pixels.popleft(), 4 * self.config.cols))

    def _fill(self, ctx: SimulatorContext, dut: Drain) -> None:
        """The array goes on: by a pixel of a block that it makes in one pass, or by a block, from the next cycle on."""
        next_cycle = self.cycles + 1
        room = self._finished_blocks < min(FINISHED_BLOCKS, len(self._blocks))
        if room and next_cycle >= self.blocks_after and self._luck():
            self._progress += 1
            if self._progress >= (self.made[len(self.whole)] if self.made else 0):
                self.whole.append(next_cycle)
                self._finished_blocks += 1
                self._progress = 0
        ctx.set(dut.accumulator.next_ready, self._finished_blocks > 0)

    @property
    def _halted(self) -> bool:
        return self.halt_after is not None and self.cycles >= self.halt_after

    def _take_inputs(self, ctx: SimulatorContext, dut: Drain) -> None:
        if ctx.get(dut.unit.command.valid) and ctx.get(dut.unit.command.ready):
            self._commands.popleft()
            self._unanswered += 1
        if self._word_arrived and ctx.get(dut.params.ready):
            self._words.popleft()
            self._word_arrived = False

    def _take_read(self, ctx: SimulatorContext, dut: Drain) -> None:
        request, taken = dut.read.request, None
        if ctx.get(request.valid):
            payload = ctx.get(request.payload)
            assert self._refused in (None, payload.as_bits()), "a request changed while it was refused"
            self._refused = payload.as_bits()
            if self._takes(payload) if self.config.deep_pipeline else ctx.get(request.ready):
                taken, self._refused = self._window(payload.bank, payload.word, payload.wide), None
                self.last_access = self.cycles
        else:
            assert self._refused is None or self._halted, "a request was withdrawn"
        self._reads.append(taken)

    def _takes(self, request: Any) -> bool:
        """Whether the feed leaves the memories of a request alone."""
        parities = (0, 1) if request.wide else (request.word % PARITIES,)
        return not any(self._fed >> PARITIES * request.bank + parity & 1 for parity in parities)

    def _window(self, bank: int, word: int, wide: int) -> int:
        """Two words; noise in place of the second one when it is not asked for."""
        rows = self.config.rows
        assert (word + 1 + wide) * rows <= self.memory.shape[1], "read beyond the last word"
        data = self.memory[bank, word * rows : (word + 1 + wide) * rows].tobytes()
        return int.from_bytes(data + self.rng.randbytes((1 - wide) * rows), "little")

    def _take_pixel(self, ctx: SimulatorContext, dut: Drain) -> None:
        taken = None
        if ctx.get(dut.accumulator.enable):
            pixel = ctx.get(dut.accumulator.pixel)
            assert self._finished_blocks or pixel < self._progress, "a pixel was read that is not finished"
            values = self._blocks[0][pixel]
            taken = int.from_bytes(values.astype("<i4").tobytes(), "little")
        self._pixels.append(taken)
        if ctx.get(dut.accumulator.release):
            assert self._finished_blocks, "a block was released that is not finished"
            assert taken is None, "a read and a release in the same cycle"
            self._blocks.popleft()
            self._finished_blocks -= 1

    def _take_write(self, ctx: SimulatorContext, dut: Drain) -> None:
        if not (ctx.get(dut.write.valid) and ctx.get(dut.write.ready)):
            return
        payload = ctx.get(dut.write.payload)
        data, mask, rows = payload.data.as_bits(), payload.mask, self.config.rows
        assert mask, "a write of nothing"
        assert payload.word * rows + mask.bit_length() <= self.memory.shape[1], "write beyond the last word"
        self.last_access = self.cycles
        for place in range(2 * rows):
            if mask >> place & 1:
                self.memory[payload.bank, payload.word * rows + place] = data >> 8 * place & 0xFF

    def _observe(self, ctx: SimulatorContext, dut: Drain) -> None:
        if ctx.get(dut.unit.done):
            assert ctx.get(dut.unit.busy)
            self.finish.append(self.cycles)
            self._unanswered -= 1
            self.on_done(len(self.finish))
        self.error = ctx.get(dut.unit.error)
        self.waited_accumulator += ctx.get(dut.wait_accumulator)
        self.waited_bank += ctx.get(dut.wait_bank)

    async def _check_end(self, ctx: SimulatorContext, dut: Drain) -> None:
        """Nothing more may come, and nothing may be left."""
        for _ in range(4):
            assert not ctx.get(dut.unit.done)
            assert not ctx.get(dut.write.valid)
            await ctx.tick()
        assert not ctx.get(dut.unit.busy)
        assert not self._blocks, "not every block was released"
        assert not self._words, "not every parameter was taken"


def random_memory(config: Config, rng: random.Random) -> NDArray[np.uint8]:
    """A scratchpad full of noise."""
    data = rng.randbytes(config.scratchpad_bytes)
    return np.frombuffer(data, np.uint8).reshape(BANKS, config.scratchpad_bytes // BANKS).copy()

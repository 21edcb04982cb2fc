"""The surroundings of a DRAIN unit in simulation: scratchpad, accumulators, parameter stream, commands."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from numpy.typing import NDArray

from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import Command, Params, encode
from loomwork.rtl.drain import Drain
from loomwork.rtl.ports import ACCUMULATOR_LATENCY, SCRATCHPAD_LATENCY
from tests.rtl.drain_model import BlockParameters


@dataclass
class DrainBench:
    """Runs commands on a DRAIN unit, with or without obstacles.

    memory: `[BANKS, bytes of a bank] uint8`, read and written. blocks: finished blocks of the accumulators, in order.
    parameters: those of each block that has any, with what part of them comes.
    patience: chance that a request is taken or a thing that is expected arrives, in each cycle; 1 = always.
    on_done: called with the number of finished commands, whenever one is. halt_after: cycle from which `halt` is 1.
    blocks_after: cycle before which no block is finished.

    After `run`: cycles, finish (cycle of each done), error, the sums of the two counters, and the last cycle in which
    the scratchpad was read or written.
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
    finish: list[int] = field(default_factory=list[int])
    cycles: int = 0
    error: int = 0
    waited_accumulator: int = 0
    waited_bank: int = 0
    last_access: int = -1

    def run(self, commands: Sequence[Command], limit: int = 20_000) -> None:
        """Run until every command is done or one reports an error."""
        dut = Drain(self.config)
        simulator = Simulator(dut)
        simulator.add_clock(1e-8)

        async def bench(ctx: SimulatorContext) -> None:
            await self._bench(ctx, dut, commands, limit)

        simulator.add_testbench(bench)
        simulator.run()

    def _luck(self) -> bool:
        return self.patience >= 1 or self.rng.random() < self.patience

    def _window(self, bank: int, word: int, wide: int) -> int:
        """Two words; what is not asked for is noise."""
        rows = self.config.rows
        assert (word + 1 + wide) * rows <= self.memory.shape[1], "read beyond the last word"
        data = self.memory[bank, word * rows : (word + 1 + wide) * rows].tobytes()
        return int.from_bytes(data + self.rng.randbytes((1 - wide) * rows), "little")

    async def _bench(self, ctx: SimulatorContext, dut: Drain, commands: Sequence[Command], limit: int) -> None:
        config, rows = self.config, self.config.rows
        waiting_commands = deque(int.from_bytes(encode(command), "little") for command in commands)
        words = deque(
            (word, index, index == len(stream) - 1)
            for block, params in self.parameters
            for stream in [block.words(params)]
            for index, word in enumerate(stream)
        )
        blocks = deque(self.blocks)
        arrived = 0  # blocks at the front of the queue that are finished
        word_arrived = False
        reads = deque([None] * SCRATCHPAD_LATENCY, maxlen=SCRATCHPAD_LATENCY)
        pixels = deque([None] * ACCUMULATOR_LATENCY, maxlen=ACCUMULATOR_LATENCY)
        refused: int | None = None
        request, write = dut.read.request, dut.write

        while len(self.finish) < len(commands) and not self.error:
            assert self.cycles < limit, f"{len(self.finish)} of {len(commands)} commands done after {limit} cycles"

            # What the surroundings offer in this cycle.
            halt = self.halt_after is not None and self.cycles >= self.halt_after
            ctx.set(dut.halt, halt)
            ctx.set(dut.unit.command.valid, bool(waiting_commands))
            if waiting_commands:
                ctx.set(dut.unit.command.payload, waiting_commands[0])
            arrived += self.cycles >= self.blocks_after and arrived < min(2, len(blocks)) and self._luck()
            ctx.set(dut.accumulator.ready, arrived > 0)
            word_arrived = bool(words) and (word_arrived or self._luck())
            ctx.set(dut.params.valid, word_arrived)
            if words:
                word, index, last = words[0]
                ctx.set(dut.params.payload, {"word": word, "index": index, "last": last})
            ctx.set(request.ready, self._luck())
            ctx.set(write.ready, self._luck())
            ctx.set(
                dut.read.data.as_value(), noise if (noise := reads.popleft()) is not None else self._noise(2 * rows)
            )
            sums = pixels.popleft()
            ctx.set(dut.accumulator.data.as_value(), sums if sums is not None else self._noise(4 * config.cols))

            # What the unit makes of it.
            if waiting_commands and ctx.get(dut.unit.command.ready):
                waiting_commands.popleft()
            if word_arrived and ctx.get(dut.params.ready):
                words.popleft()
                word_arrived = False

            taken = None
            if ctx.get(request.valid):
                payload = ctx.get(request.payload)
                assert refused in (None, payload.as_bits()), "a request changed while it was refused"
                refused = payload.as_bits()
                if ctx.get(request.ready):
                    taken, refused = self._window(payload.bank, payload.word, payload.wide), None
                    self.last_access = self.cycles
            else:
                assert refused is None or halt, "a request was withdrawn"
            reads.append(taken)

            taken = None
            if ctx.get(dut.accumulator.enable):
                assert arrived, "a block was read that is not finished"
                values = blocks[0][ctx.get(dut.accumulator.pixel)]
                taken = int.from_bytes(values.astype("<i4").tobytes(), "little")
            pixels.append(taken)
            if ctx.get(dut.accumulator.release):
                assert arrived, "a block was released that is not finished"
                assert taken is None, "a read and a release in the same cycle"
                blocks.popleft()
                arrived -= 1

            if ctx.get(write.valid) and ctx.get(write.ready):
                payload = ctx.get(write.payload)
                data, mask = payload.data.as_bits(), payload.mask
                assert mask, "a write of nothing"
                self.last_access = self.cycles
                for place in range(2 * rows):
                    if mask >> place & 1:
                        self.memory[payload.bank, payload.word * rows + place] = data >> 8 * place & 0xFF
            if ctx.get(dut.unit.done):
                self.finish.append(self.cycles)
                self.on_done(len(self.finish))
            self.error = ctx.get(dut.unit.error)
            assert ctx.get(dut.unit.busy) or not ctx.get(dut.unit.done)
            self.waited_accumulator += ctx.get(dut.wait_accumulator)
            self.waited_bank += ctx.get(dut.wait_bank)
            await ctx.tick()
            self.cycles += 1

        if not self.error:
            for _ in range(4):  # nothing more may come
                assert not ctx.get(dut.unit.done)
                assert not ctx.get(write.valid)
                await ctx.tick()
            assert not ctx.get(dut.unit.busy)
            assert not blocks, "not every block was released"
            assert not words, "not every parameter was taken"

    def _noise(self, count: int) -> int:
        return int.from_bytes(self.rng.randbytes(count), "little")


def random_memory(config: Config, rng: random.Random) -> NDArray[np.uint8]:
    """A scratchpad full of noise."""
    data = rng.randbytes(config.scratchpad_bytes)
    return np.frombuffer(data, np.uint8).reshape(BANKS, config.scratchpad_bytes // BANKS).copy()

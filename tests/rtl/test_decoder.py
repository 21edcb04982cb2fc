# SPDX-License-Identifier: Apache-2.0
"""The decoder against `arch.command.decode`: it refuses exactly the commands that the software decoder refuses."""

import random

import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator, SimulatorContext

from loomwork.arch import isa
from loomwork.arch.command import Command, decode, encode
from loomwork.arch.isa import BY_MNEMONIC, COMMAND_BYTES, INSNS, Field, Unit
from loomwork.arch.registers import ErrorCode
from loomwork.rtl.command import command_layout
from loomwork.rtl.decoder import Decoder

SEED = 20250101


def expected(word: int) -> tuple[Unit | None, ErrorCode]:
    """Unit and error that `arch.command.decode` gives for a raw command."""
    try:
        command = decode(word.to_bytes(COMMAND_BYTES, "little"))
    except isa.IsaError as error:
        return None, ErrorCode.ILLEGAL_OPCODE if str(error).startswith("opcode") else ErrorCode.ILLEGAL_OPERAND
    return command.insn.unit, ErrorCode.NONE


def value_of(rng: random.Random, item: Field) -> int:
    """A legal value, often at a limit."""
    return rng.choice([item.low, item.high, rng.randint(item.low, item.high)])


def legal_word(rng: random.Random, mnemonic: str) -> int:
    insn = BY_MNEMONIC[mnemonic]
    waits = {unit: rng.randrange(1024) for unit in isa.TICKET_UNITS if rng.random() < 0.5}
    command = Command(mnemonic, {item.name: value_of(rng, item) for item in insn.operands}, waits)
    return int.from_bytes(encode(command), "little")


def words(rng: random.Random) -> list[int]:
    """Legal commands, the same with one field or one bit changed, each operand just beyond its limits, and noise."""
    result = [rng.getrandbits(8 * COMMAND_BYTES) for _ in range(50)]
    for insn in INSNS:
        for _ in range(20):
            word = legal_word(rng, insn.mnemonic)
            result += [word, word ^ 1 << rng.randrange(8 * COMMAND_BYTES)]
        for item in insn.operands:
            for value in (item.low - 1, item.low, item.high, item.high + 1):
                mask = (1 << item.bits) - 1
                place = insn.offsets[item.name]
                word = legal_word(rng, insn.mnemonic)
                result.append(word & ~(mask << place) | (value & mask) << place)
        if insn.bits < 8 * COMMAND_BYTES:
            result.append(legal_word(rng, insn.mnemonic) | 1 << insn.bits)
    return result


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_agrees_with_the_software_decoder(seed: int, deep: bool):
    rng = random.Random(seed)
    dut = Decoder(deep=deep)
    reset_signal = Signal()
    cases = [(word, *expected(word)) for word in words(rng)]
    assert {code for _, _, code in cases} == {ErrorCode.NONE, ErrorCode.ILLEGAL_OPCODE, ErrorCode.ILLEGAL_OPERAND}

    async def testbench(ctx: SimulatorContext):
        ctx.set(dut.o.ready, 1)
        for index, (word, unit, code) in enumerate(cases):
            ctx.set(dut.i.payload, {"command": word, "index": index})
            ctx.set(dut.i.valid, 1)
            assert ctx.get(dut.i.ready)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            for _ in range(2 * deep):
                assert [ctx.get(dut.i.ready), ctx.get(dut.o.valid), ctx.get(dut.error)] == [0, 0, 0]
                await ctx.tick()
            assert ctx.get(dut.error) == code, f"command {word:#x}"
            assert ctx.get(dut.o.valid) == (code == ErrorCode.NONE)
            if code == ErrorCode.NONE:
                assert ctx.get(dut.o.payload.unit) == unit
                assert ctx.get(dut.o.payload.command) == word
                assert ctx.get(dut.o.payload.index) == index
                if deep:
                    assert not ctx.get(dut.i.ready)
                    await ctx.tick()
            else:
                assert ctx.get(dut.error_index) == index
                await ctx.tick()
                assert ctx.get(dut.error) == ErrorCode.NONE
                assert not ctx.get(dut.i.ready), "an illegal command must stop the decoder"
                ctx.set(reset_signal, 1)
                await ctx.tick()
                ctx.set(reset_signal, 0)

    simulator = Simulator(ResetInserter(reset_signal)(dut))
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("deep", [False, True])
def test_holds_a_command_until_it_is_taken(deep: bool):
    dut = Decoder(deep=deep)
    rng = random.Random(SEED)
    sent = [legal_word(rng, rng.choice(INSNS).mnemonic) for _ in range(100)]
    received: list[tuple[int, int]] = []

    async def producer(ctx: SimulatorContext):
        for index, word in enumerate(sent):
            while rng.random() < 0.3:
                await ctx.tick()
            ctx.set(dut.i.payload, {"command": word, "index": index})
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def consumer(ctx: SimulatorContext):
        while len(received) < len(sent):
            ctx.set(dut.o.ready, rng.random() < 0.5)
            _, _, valid, ready, command, index = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload.command, dut.o.payload.index
            )
            if valid and ready:
                received.append((command, index))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(producer)
    simulator.add_testbench(consumer)
    simulator.run()
    assert received == [(word, index) for index, word in enumerate(sent)]


@pytest.mark.parametrize("insn", INSNS, ids=lambda insn: insn.mnemonic)
def test_layout_places_every_field_where_the_table_does(insn: isa.Insn):
    layout = command_layout(insn.mnemonic)
    assert {name: field.offset for name, field in layout} == insn.offsets
    assert layout.size == insn.bits

# SPDX-License-Identifier: Apache-2.0
"""Programs on the core, compared with the golden model, under random latency and back-pressure."""

import cocotb
from cocotb.triggers import ClockCycles

from loomwork.arch.isa import Combine, Pool, Window
from loomwork.arch.registers import BY_NAME
from loomwork.sim.testbench.environment import Bench, Dut
from loomwork.sim.testbench.expected import golden_outputs
from loomwork.sim.testbench.programs import copy_program, fused_program, layer_program

PAUSES = (0, 30, 70)


@cocotb.test()
@cocotb.parametrize(pause_percent=PAUSES)
async def copies(dut: Dut, pause_percent: int) -> None:
    """What LOAD brings in, STORE brings out, byte for byte."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    for _ in range(8):
        program = copy_program(bench.config, bench.random)
        assert await bench.run(program.commands, program.windows) == program.inputs


@cocotb.test()
@cocotb.parametrize(("pause_percent", PAUSES), ("depthwise", (False, True)))
async def layers(dut: Dut, pause_percent: int, depthwise: bool) -> None:
    """Random convolutions and poolings give the golden model's bytes."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    for number in range(10):
        skips = bench.config.block_sparsity and number % 2 == 0
        program = layer_program(bench.config, bench.random, depthwise=depthwise and bench.config.depthwise, skips=skips)
        expected = program.defined(golden_outputs(program))
        found = program.defined(await bench.run(program.commands, program.windows))
        assert found == expected, f"program {number} differs"


@cocotb.test()
@cocotb.parametrize(
    (
        ("combine", "pool"),
        [
            *((Combine.ADD, Pool.NONE), (Combine.ADD, Pool.MAX), (Combine.NONE, Pool.MAX), (Combine.NONE, Pool.SUM)),
            *((Combine.TABLE, Pool.NONE), (Combine.TABLE, Pool.MAX), (Combine.TABLE, Pool.SUM)),
            *((Combine.MULTIPLY, Pool.NONE), (Combine.MULTIPLY, Pool.MAX)),
        ],
    ),
    ("pause_percent", (0, 40)),
)
async def fused_layers(dut: Dut, combine: Combine, pool: Pool, pause_percent: int) -> None:
    """ADD, MULTIPLY, tables and pooling on the accumulators and on the scratchpad give the golden model's bytes."""
    bench = await Bench.create(dut, pause_percent=pause_percent)
    absent = {
        Combine.ADD: not bench.config.residual_add,
        Combine.TABLE: not bench.config.activation_table,
        Combine.MULTIPLY: not bench.config.elementwise_multiply,
    }
    if absent.get(combine):
        combine = Combine.NONE
    for number in range(6):
        program = fused_program(bench.config, bench.random, combine, pool)
        expected = program.defined(golden_outputs(program))
        found = program.defined(await bench.run(program.commands, program.windows))
        assert found == expected, f"program {number} differs"


@cocotb.test()
async def counters(dut: Dut) -> None:
    """Counters agree with the bus traffic, start from zero each time, and the interrupt can be cleared."""
    bench = await Bench.create(dut)
    program = copy_program(bench.config, bench.random)
    beats = len(program.inputs) // bench.config.bus_bytes
    for _ in range(2):
        await bench.run(program.commands, program.windows)
        assert await bench.read("COUNT_WRITE_BEATS") == beats
        assert await bench.read("COUNT_READ_BEATS") >= beats
        assert 0 < await bench.read("COUNT_LOAD_BUSY") <= await bench.read("COUNT_CYCLES")
    await bench.write("IRQ_STATUS", BY_NAME["IRQ_STATUS"].mask("DONE"))
    await ClockCycles(dut.clk, 2)
    assert bench.dut.irq.value == 0
    assert bench.memory.content(Window.INPUTS) == program.inputs

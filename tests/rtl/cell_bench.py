# SPDX-License-Identifier: Apache-2.0
"""Runs components that contain vendor cells: as Verilog together with the cells' models, in Verilator.

The same stimuli can be run through the components without the cells in Amaranth's simulator.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Cat, Module, Value
from amaranth.lib.wiring import Component, Flow, In, Out
from amaranth.sim import Simulator, SimulatorContext

from loomwork.sim.toolchain import verilator

TESTBENCH = """\
module testbench;
    reg clk = 0;
    reg [INPUTS-1:0] stimuli[0:CYCLES-1];
    reg [INPUTS-1:0] i;
    wire [OUTPUTS-1:0] o;
    integer cycle, file;
    units units(.clk(clk), .rst(1'b0), .i(i), .o(o));
    initial begin
        $readmemh("stimuli.hex", stimuli);
        file = $fopen("outputs.hex");
        for (cycle = 0; cycle < CYCLES; cycle = cycle + 1) begin
            i = stimuli[cycle];
            #1 $fdisplay(file, "%h", o);
            #1 clk = 1;
            #1 clk = 0;
        end
        $finish;
    end
endmodule
"""

Port = tuple[str, str]
"""Unit and port, such as ("array", "swap")."""
Ports = Mapping[Port, int]
"""Value of each port, as an unsigned number."""


class Units(Component):
    """Several components side by side, with all inputs in one word `i` and all outputs in one word `o`."""

    def __init__(self, units: Mapping[str, Component]) -> None:
        self._units: Mapping[str, Any] = units
        self._ports: dict[Flow, dict[Port, Value]] = {In: {}, Out: {}}
        for name, unit in units.items():
            for path, member, value in unit.signature.flatten(unit):
                self._ports[member.flow][name, ".".join(map(str, path))] = Value.cast(value)
        super().__init__(
            {port: flow(sum(map(len, self._ports[flow].values()))) for port, flow in (("i", In), ("o", Out))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, unit in self._units.items():
            m.submodules[name] = unit
        m.d.comb += [Cat(*self._ports[In].values()).eq(self.i), self.o.eq(Cat(*self._ports[Out].values()))]
        return m

    def pack(self, inputs: Ports) -> int:
        """The word `i`; ports that are not named are 0."""
        unknown = set(inputs) - set(self._ports[In])
        assert not unknown, f"no such inputs: {unknown}"
        word = 0
        for path, signal in reversed(self._ports[In].items()):
            word = word << len(signal) | inputs.get(path, 0) & (1 << len(signal)) - 1
        return word

    def unpack(self, word: int) -> dict[Port, int]:
        """The outputs in a word `o`."""
        outputs: dict[Port, int] = {}
        for path, signal in self._ports[Out].items():
            outputs[path] = word & (1 << len(signal)) - 1
            word >>= len(signal)
        return outputs


def run_portable(units: Units, stimuli: Sequence[Ports]) -> list[dict[Port, int]]:
    """The outputs in each cycle, of what Amaranth simulates."""
    words: list[int] = []

    async def bench(ctx: SimulatorContext) -> None:
        for inputs in stimuli:
            ctx.set(units.i, units.pack(inputs))
            words.append(ctx.get(units.o))
            await ctx.tick()

    simulator = Simulator(units)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return [units.unpack(word) for word in words]


def run_cells(
    units: Units, platform: Any, models: Sequence[Path], stimuli: Sequence[Ports], folder: Path
) -> list[dict[Port, int]]:
    """The outputs in each cycle, of the Verilog for a platform. Its registers begin with random contents.

    models: Verilog files of the cells. folder: empty.
    """
    (folder / "units.v").write_text(verilog.convert(units, platform=platform, name="units", emit_src=False))
    sizes = f"localparam INPUTS = {len(units.i)}, OUTPUTS = {len(units.o)}, CYCLES = {len(stimuli)};"
    (folder / "testbench.v").write_text(TESTBENCH.replace("testbench;", f"testbench;\n    {sizes}", 1))
    (folder / "stimuli.hex").write_text("".join(f"{units.pack(inputs):x}\n" for inputs in stimuli))
    tool = verilator()
    build = [str(tool.executable), "--binary", "--timing", "-j", "2", "--top-module", "testbench"]
    # To optimize would take longer than to run.
    build += ["-MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0", "--x-initial", "unique"]
    build += ["-Wno-fatal", "-Wno-lint", "-Wno-style", *{f"+incdir+{model.parent}" for model in models}]
    run(folder, [*build, "testbench.v", "units.v", *map(str, models)], os.environ | tool.env)
    run(folder, ["obj_dir/Vtestbench", "+verilator+rand+reset+2", "+verilator+seed+1"], os.environ)
    words = (folder / "outputs.hex").read_text().split()
    assert len(words) == len(stimuli)
    return [units.unpack(int(word, 16)) for word in words]


def run(folder: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

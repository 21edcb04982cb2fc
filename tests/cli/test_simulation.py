# SPDX-License-Identifier: Apache-2.0
"""The commands that generate or simulate the core: `verilog`, `run --backend verilator`, `demo`, `regress`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.config import PRESETS, TINY
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.program_file import read_program
from loomwork.cli import benchmark, demo
from loomwork.sim.backend import RunError
from loomwork.sim.testbench import runner
from loomwork.sim.testbench.runner import Summary, TestResult
from tests.tracks import overlapping

IMAGES = np.random.default_rng(5).integers(-128, 128, (5, 6, 6, 3), dtype=np.int8)


@pytest.fixture
def compiled(workspace: Path, loomwork) -> Path:
    np.save("images.npy", IMAGES)
    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "--config", "tiny").code == 0
    return workspace


def test_verilog_writes_the_core_and_its_description(workspace: Path, loomwork):
    finished = loomwork("verilog", "--config", "formal", "-o", "build/formal")
    assert (finished.code, finished.out) == (0, "wrote build/formal/core.v, build/formal/core.json\n")
    assert sorted(path.name for path in Path("build/formal").iterdir()) == ["core.json", "core.v"]
    text = Path("build/formal/core.v").read_text()
    ports = re.search(r"^module loomwork_core\(([^)]*)\);", text, re.MULTILINE)
    assert ports is not None
    assert {"clk", "rst", "irq", "m_axi_awaddr", "s_axil_wdata"} <= {name.strip() for name in ports[1].split(",")}
    description = json.loads(Path("build/formal/core.json").read_text())
    assert description["config"] == PRESETS["formal"].to_dict()
    assert f"{PRESETS['formal'].hash:016x}" in text

    assert loomwork("verilog", "--config", "formal", "-o", "again").code == 0
    assert Path("again/core.v").read_text() == text


def test_the_rtl_computes_what_the_golden_model_does(compiled: Path, loomwork):
    options = ("run", "net.lwb", "-i", "images.npy")
    assert loomwork(*options, "-o", "golden.npy").code == 0
    outputs = ("--json", "stats.json", "--trace", "trace.json")
    finished = loomwork(*options, "-o", "rtl.npy", "--backend", "verilator", *outputs)
    assert finished.code == 0
    assert np.array_equal(np.load("rtl.npy"), np.load("golden.npy"))

    statistics = json.loads(Path("stats.json").read_text())
    cycles = statistics["cycles_per_image"]
    assert statistics["images"] == len(cycles) == len(IMAGES)
    assert all(image[0]["cycles"] == total for image, total in zip(statistics["steps"], cycles, strict=True))
    assert f"{int(np.median(cycles)):,} cycles per image (median of {len(IMAGES)})" in finished.out

    events = json.loads(Path("trace.json").read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X" and event["cat"] == "command"]
    program = read_program(Path("net.lwb"))
    commands = [step.commands for step in program.steps if isinstance(step, AcceleratorStep)]
    assert len(slices) == sum(len(encoded) // 32 - 1 for encoded in commands)  # all but END
    assert {event["name"].split()[0] for event in slices} >= {"LOAD", "STREAM", "CONVOLVE", "DRAIN", "STORE"}
    names = [layer["name"] for layer in program.report["layers"] if layer["where"] == "accelerator"]
    assert all(any(name in event["name"] for event in slices) for name in names)
    assert overlapping({"traceEvents": events}) == []


def test_latency_is_that_of_the_memory(compiled: Path, loomwork):
    cycles = []
    for latency in (5, 200):
        options = ("--backend", "verilator", "--json", "stats.json", "--latency", latency)
        assert loomwork("run", "net.lwb", "-i", "images.npy", "-o", "y.npy", *options).code == 0
        cycles.append(json.loads(Path("stats.json").read_text())["cycles_per_image"][0])
    assert cycles[0] < cycles[1]
    assert loomwork("run", "net.lwb", "-i", "images.npy", "-o", "y.npy", "--latency", 0).code == 2


# demo


@pytest.fixture
def small_demo(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on the small network and random images, which need no training."""
    np.savez("images.npz", images=IMAGES, labels=np.zeros(len(IMAGES), np.int64))
    monkeypatch.setattr(demo, "MODEL", Path("net.tflite"))
    monkeypatch.setattr(demo, "IMAGES", Path("images.npz"))


def test_demo_makes_everything_and_compares_every_bit(small_demo, loomwork):
    finished = loomwork("demo", "-o", "out/demo", "-c", "tiny", "--images", 4)
    assert finished.code == 0, finished
    assert "4 of 4 images equal tflite-micro's" in finished.out
    assert "4 of 4 images equal the golden model's" in finished.out
    assert "on 4 images" in finished.out
    made = finished.out.split("made ", 1)[1].replace("\n", " ").split(",")
    assert all(Path(name.strip()).is_file() for name in made)
    assert sorted(Path(name.strip()) for name in made) == sorted(Path("out/demo").iterdir())
    assert json.loads(Path("out/demo/statistics.json").read_text())["images"] == 4


def test_demo_fails_loudly_when_a_bit_differs(small_demo, loomwork, monkeypatch: pytest.MonkeyPatch):
    right = benchmark.reference_outputs

    def wrong(*arguments):
        outputs = right(*arguments)
        for value in outputs.values():
            value.reshape(-1)[0] ^= 1
        return outputs

    monkeypatch.setattr(benchmark, "reference_outputs", wrong)
    monkeypatch.setattr("loomwork.rtl.generate.generate_verilog", lambda *_, **__: "module loomwork_core; endmodule")
    finished = loomwork("demo", "-o", "demo", "-c", "tiny", "--images", 3)
    assert finished.code == 1
    assert "2 of 3 images equal tflite-micro's" in finished.out
    assert "the RTL does not compute what tflite-micro computes" in finished.err


# regress


@pytest.mark.parametrize(("failed", "code"), [(False, 0), (True, 1)])
def test_regress_tells_what_failed(failed: bool, code: int, workspace: Path, loomwork, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple] = []

    def run_regression(config, *, expression, waves):
        asked.append((config, expression, waves))
        results = (
            TestResult("copies", True, "", 1.5),
            TestResult(
                "errors[3]", not failed, "1 is not 2" if failed else "", 2.5, Path("dump.vcd") if failed else None
            ),
        )
        return Summary(config, results, Path("simulation.log"))

    monkeypatch.setattr(runner, "run_regression", run_regression)
    finished = loomwork("regress", "--config", "tiny", "-k", "some", "--waves")
    assert finished.code == code
    assert asked == [(TINY, "some", True)]
    assert f"tiny: {1 if failed else 2} passed, {1 if failed else 0} failed" in finished.out
    assert "errors[3]" in finished.out
    assert ("FAILED 1 is not 2" in finished.out, "dump.vcd" in finished.out) == (failed, failed)


def test_regress_of_no_test_is_a_mistake(workspace: Path, loomwork, monkeypatch: pytest.MonkeyPatch):
    def run_regression(config, **_):
        raise RunError("no test's name matches 'nothing'")

    monkeypatch.setattr(runner, "run_regression", run_regression)
    finished = loomwork("regress", "-k", "nothing")
    assert (finished.code, finished.err.strip()) == (2, "error: no test's name matches 'nothing'")

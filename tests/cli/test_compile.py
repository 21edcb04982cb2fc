# SPDX-License-Identifier: Apache-2.0
"""`loomwork compile`, `info` and `disasm`: a network becomes a program that can be looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.isa import COMMAND_BYTES
from loomwork.arch.program import AcceleratorStep
from loomwork.arch.program_file import read_program
from tests.networks import random_network


def test_a_network_becomes_a_program(workspace: Path, loomwork):
    finished = loomwork("compile", "net.tflite", "-o", "net.lwb", "--config", "tiny")
    assert finished.code == 0
    assert finished.out.endswith("wrote net.lwb\n")
    program = read_program(workspace / "net.lwb")
    assert program.config.name == "tiny"
    assert program.inputs == ("image",)
    # Convolution and dense layer of the network by their definition.
    assert program.report["totals"]["macs"] == 6 * 6 * 6 * 27 + 54 * 5
    for layer in program.report["layers"]:
        assert layer["operator"] in finished.out
    (softmax,) = [layer for layer in program.report["layers"] if layer["where"] == "host"]
    assert f"on the host: {softmax['name']}: {softmax['reason']}" in finished.out


def test_the_report_is_that_of_the_program(workspace: Path, loomwork):
    finished = loomwork("compile", "net.tflite", "-o", "net.lwb", "-c", "tiny", "--report", "report.json")
    assert finished.out.endswith("wrote net.lwb and report.json\n")
    report = json.loads((workspace / "report.json").read_text())
    assert report == read_program(workspace / "net.lwb").report
    cycles = [layer["predicted_cycles"] for layer in report["layers"] if layer["where"] == "accelerator"]
    assert sum(cycles) == report["totals"]["predicted_cycles"]
    (heading,) = [line for line in finished.out.splitlines() if line.split()[:1] == ["layer"]]
    assert heading.split()[-1] == "predicted"
    totals = next(line.split() for line in finished.out.splitlines() if line.split()[:1] == ["total"])
    assert totals[-1] == f"{report['totals']['predicted_cycles']:,}"


def test_the_prediction_is_what_the_rtl_takes(workspace: Path, loomwork):
    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "-c", "tiny", "--report", "report.json").code == 0
    predicted = json.loads((workspace / "report.json").read_text())["totals"]["predicted_cycles"]
    np.save(workspace / "x.npy", np.zeros((6, 6, 3), np.int8))
    run = ("run", "net.lwb", "-i", "x.npy", "-o", "y.npy", "--backend", "verilator", "--json", "run.json")
    assert loomwork(*run).code == 0
    (cycles,) = json.loads((workspace / "run.json").read_text())["cycles_per_image"]
    assert abs(predicted - cycles) <= 0.02 * cycles


def test_compiling_again_gives_the_same_file(workspace: Path, loomwork):
    files = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "loomwork.cli.main", "compile", "net.tflite", "-o", "net.lwb", "-c", "tiny"]
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True)
        files.append((workspace / "net.lwb").read_bytes())
    assert files[0] == files[1]


def test_dead_channels_can_be_kept(workspace: Path, loomwork):
    (workspace / "half.tflite").write_bytes(random_network(1, "resnet", dead_filters=0.5).model_bytes)
    totals = {}
    for option in ([], ["--keep-dead-channels"]):
        finished = loomwork("compile", "half.tflite", "-o", "half.lwb", "--report", "report.json", *option)
        assert finished.code == 0
        totals[bool(option)] = json.loads((workspace / "report.json").read_text())["totals"]
        assert ("dead: " in finished.out) is not bool(option)
    assert totals[False]["macs"] == totals[True]["macs"] == totals[True]["executed_macs"]
    assert totals[False]["executed_macs"] < totals[True]["executed_macs"]
    assert (totals[True]["dead_macs"], totals[True]["dead_channels"]) == (0, 0)


def test_a_configuration_may_be_a_file(workspace: Path, loomwork):
    (workspace / "mine.json").write_text('{"base": "tiny", "scratchpad_kib": 32}')
    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "--config", "mine.json").code == 0
    config = read_program(workspace / "net.lwb").config
    assert (config.name, config.scratchpad_kib, config.rows) == ("mine", 32, 4)


@pytest.mark.parametrize("name", ["net.pb", "net.onnx"])
def test_a_network_is_one_whatever_its_file_is_called(name: str, workspace: Path, loomwork):
    (workspace / "net.tflite").rename(name)
    assert loomwork("compile", name, "-o", "net.lwb", "--config", "tiny").code == 0


def test_a_preset_is_no_file(workspace: Path, loomwork):
    assert loomwork("compile", "net.tflite", "-o", "tiny", "--config", "tiny").code == 0


def test_info_tells_what_a_program_takes_gives_and_does(workspace: Path, loomwork):
    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "--config", "tiny").code == 0
    finished = loomwork("info", "net.lwb")
    assert (finished.code, finished.err) == (0, "")
    program = read_program(workspace / "net.lwb")
    assert "configuration tiny: 4x4 array, 16 KiB scratchpad, 4 bytes per bus beat" in finished.out
    rows = [line.split() for line in finished.out.splitlines()]
    cells = [[word for word in row if word not in "│┃"] for row in rows]
    assert ["input", "image", "int8", "1x6x6x3", "0.02", "-4"] in cells
    assert ["output", program.outputs[0], "int8", "1x5", "0.00390625", "-128"] in cells
    for index, step in enumerate(program.steps):
        if isinstance(step, AcceleratorStep):
            assert f"step {index}: accelerator, {len(step.commands) // COMMAND_BYTES} commands, " in finished.out
        else:
            assert f"step {index}: host, " in finished.out
            assert all(f"{name} ({why})" in finished.out for name, why in step.operators)


@pytest.mark.parametrize("name", ["copy", "real", "two"])
def test_info_and_disasm_need_no_report(name: str, workspace: Path, loomwork):
    info = loomwork("info", f"{name}.lwb")
    assert (info.code, info.err) == (0, "")
    assert info.out.count("accelerator, 3 commands") == (2 if name == "two" else 1)
    listing = loomwork("disasm", f"{name}.lwb")
    assert (listing.code, listing.err) == (0, "")
    assert listing.out.count("STORE window=OUTPUTS") == (2 if name == "two" else 1)


def test_disasm_prints_every_command_in_order(workspace: Path, loomwork):
    from loomwork.compiler.disasm import assemble

    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "--config", "tiny").code == 0
    finished = loomwork("disasm", "net.lwb")
    assert (finished.code, finished.err) == (0, "")
    steps = read_program(workspace / "net.lwb").steps
    expected = {index: step.commands for index, step in enumerate(steps) if isinstance(step, AcceleratorStep)}
    assert {index: data for index, data in assemble(finished.out).items() if data} == expected


def test_disasm_may_be_cut_off_by_what_reads_it(workspace: Path):
    command = f"{sys.executable} -m loomwork.cli.main disasm copy.lwb | true"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in finished.stderr


def test_configs_lists_the_presets(loomwork):
    finished = loomwork("configs")
    assert finished.code == 0
    cells = [[word for word in line.split() if word not in "│┃"] for line in finished.out.splitlines()]
    assert ["base", "16x16", "256", "256", "KiB", "2", "x", "256", "pixels", "16", "bytes", "16"] in cells
    assert ["tiny", "4x4", "16", "16", "KiB", "2", "x", "32", "pixels", "4", "bytes", "2"] in cells

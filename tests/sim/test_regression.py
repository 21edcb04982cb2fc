# SPDX-License-Identifier: Apache-2.0
"""The cocotb regression: all of it on the tiny core, part of it on others, and what it leaves behind."""

import os
from pathlib import Path

import cocotb_tools.config
import pytest

from loomwork.arch.config import PRESETS, Config
from loomwork.rtl.generate import MODULE_NAME
from loomwork.sim.backend import RunError
from loomwork.sim.testbench import runner
from loomwork.sim.testbench.runner import run_regression

NARROW_BUS = Config(
    name="narrow_bus", rows=8, cols=4, scratchpad_kib=8, accumulator_depth=16, bus_bytes=4, requant_lanes=1
)


def test_the_whole_regression_passes_on_tiny(tmp_path: Path) -> None:
    summary = run_regression(PRESETS["tiny"], directory=tmp_path)
    assert [result.name for result in summary.results if not result.passed] == []
    assert len(summary.results) >= 28
    assert {result.name.split(".")[0] for result in summary.results} == {
        "test_registers",
        "test_programs",
        "test_errors",
    }


@pytest.mark.parametrize("config", [PRESETS["formal"], NARROW_BUS], ids=lambda config: config.name)
def test_programs_and_aborts_on_other_shapes(tmp_path: Path, config: Config) -> None:
    summary = run_regression(config, expression="layers|copies|abort", directory=tmp_path)
    assert [result.name for result in summary.results if not result.passed] == []
    assert len(summary.results) >= 8


def test_waves_are_kept_on_demand(tmp_path: Path) -> None:
    path = os.environ["PATH"]
    summary = run_regression(PRESETS["tiny"], expression="identity", waves=True, directory=tmp_path)
    assert os.environ["PATH"] == path, "a regression must not change where this process finds its tools"
    (result,) = summary.results
    assert result.passed
    assert result.waves is not None
    assert "$enddefinitions" in result.waves.read_text(encoding="utf-8")


def test_a_failure_is_reported_with_its_waveform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A test bench that expects another configuration than the one it runs on has to fail.
    monkeypatch.setattr(runner, "build", _builder_of_another(PRESETS["tiny"]))
    other = Config.from_dict({**PRESETS["tiny"].to_dict(), "stream_beats": 128})
    summary = run_regression(other, expression="identity", directory=tmp_path)
    assert not summary.passed
    (result,) = summary.results
    assert not result.passed
    assert result.message
    assert result.waves is not None
    assert result.waves.is_file()


def _builder_of_another(config: Config) -> object:
    build = runner.build
    return lambda _, *, waves: build(config, waves=waves)


def test_an_expression_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no test's name matches 'nothing_like_it'"):
        run_regression(PRESETS["tiny"], expression="nothing_like_it", directory=tmp_path)


def test_a_kept_test_bench_outlives_the_environment_that_built_it() -> None:
    libraries = str(cocotb_tools.config.libs_dir).encode()
    executable = runner.build(PRESETS["tiny"], waves=False) / MODULE_NAME
    assert libraries not in executable.read_bytes()


@pytest.mark.parametrize("ending", ["exit 127", "kill -SEGV $$"])
def test_a_simulator_that_ends_without_results_is_an_error_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    executable = tmp_path / "built" / MODULE_NAME
    executable.parent.mkdir()
    executable.write_text(f"#!/bin/sh\necho last words\n{ending}\n")
    executable.chmod(0o755)
    monkeypatch.setattr(runner, "build", lambda _, *, waves: executable.parent)
    with pytest.raises(RunError, match=r"ended abnormally; see .*simulation\.log"):
        run_regression(PRESETS["tiny"], directory=tmp_path)
    assert "last words" in (tmp_path / "tiny" / "simulation.log").read_text()

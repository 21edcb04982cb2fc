# SPDX-License-Identifier: Apache-2.0
"""Builds the core for cocotb, runs the test benches, and keeps a waveform of every test that failed."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import cocotb
import cocotb_tools.config
from cocotb_tools.runner import get_runner
from rich.table import Table

from loomwork.arch.config import Config
from loomwork.rtl.generate import MODULE_NAME, generate_verilog
from loomwork.sim.backend import RunError
from loomwork.sim.testbench.environment import CONFIG_VARIABLE
from loomwork.sim.toolchain import BUILD_FLAGS, cache_directory, verilator

MODULES = tuple(f"loomwork.sim.testbench.test_{name}" for name in ("registers", "programs", "errors"))
SEED = 1
# No --public-flat-rw, which cocotb's own build would pass: it makes every signal of the array visible from outside and
# the C++ of a 16x16 core compile for many minutes. The test benches need the ports only.
VERILATOR_FLAGS = (
    "--vpi",
    "--public-depth",
    "1",
    "-O3",
    "--output-split",
    "20000",
    "--timing",
    "-Wno-fatal",
    "-Wno-lint",
)


@dataclass(frozen=True)
class TestResult:
    """One test: name, whether it passed, the first line of its failure, and its waveform if one was kept."""

    __test__ = False

    name: str
    passed: bool
    message: str
    seconds: float
    waves: Path | None = None


@dataclass(frozen=True)
class Summary:
    """All results of one regression. log: simulator output."""

    config: Config
    results: tuple[TestResult, ...]
    log: Path

    @property
    def passed(self) -> bool:
        """Whether there were tests and all of them passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    def table(self) -> Table:
        """For the terminal."""
        failed = sum(not result.passed for result in self.results)
        title = f"{self.config.name}: {len(self.results) - failed} passed, {failed} failed"
        table = Table("test", "result", "seconds", "waveform", title=title, caption=f"log: {self.log}")
        for result in self.results:
            verdict = "passed" if result.passed else f"FAILED {result.message}"
            table.add_row(result.name, verdict, f"{result.seconds:.1f}", str(result.waves or ""))
        return table


def run_regression(
    config: Config,
    *,
    expression: str | None = None,
    waves: bool = False,
    directory: Path = Path("build/regress"),
    seed: int = SEED,
) -> Summary:
    """Run the cocotb test benches on one configuration.

    expression: regular expression that test names must contain. waves: keep a waveform of every test, not only of those
    that fail. directory: where results, logs and waveforms go. seed: of all random choices.
    Raises RunError when the build fails or no test matches, ToolchainError when a tool is missing.
    """
    folder = (directory / config.name).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = _run(config, folder, build(config, waves=False), expression, seed, waves=False)
    if not results:
        raise RunError(f"no test's name matches {expression!r}" if expression else "the regression ran no test")
    kept: list[TestResult] = []
    for result in results:
        if result.passed and not waves:
            kept.append(result)
            continue
        own = folder / re.sub(r"\W+", "_", result.name)
        own.mkdir()
        # The same seed gives the same run: a failure comes back, now with its waveform.
        (again,) = _run(config, own, build(config, waves=True), f"{re.escape(result.name)}$", seed, waves=True)
        dump = own / "dump.vcd"
        kept.append(TestResult(result.name, result.passed and again.passed, result.message, result.seconds, dump))
    return Summary(config, tuple(kept), folder / "simulation.log")


def build(config: Config, *, waves: bool) -> Path:
    """Verilate the core with cocotb's main program; returns the folder with the executable, cached by content."""
    tool = verilator()
    source = generate_verilog(config)
    key = hashlib.sha256(
        "\0".join((source, tool.version, cocotb.__version__, str(waves), *VERILATOR_FLAGS, *BUILD_FLAGS)).encode()
    ).hexdigest()[:16]
    folder = cache_directory() / "testbenches" / f"{config.name}{'-waves' if waves else ''}-{key}"
    if (folder / MODULE_NAME).is_file():
        return folder
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    building.mkdir(parents=True, exist_ok=True)
    (building / "core.v").write_text(source, encoding="utf-8")
    command = [
        *(str(tool.executable), "--cc", "--exe", "--build", "-j", str(os.cpu_count() or 1)),
        *("--prefix", "Vtop", "--top-module", MODULE_NAME, "-o", MODULE_NAME, "--Mdir", str(building)),
        *VERILATOR_FLAGS,
        *BUILD_FLAGS,
        *(("--trace",) if waves else ()),
        # Without -rpath: the executable may outlive the virtual environment that it was built from.
        *("-LDFLAGS", f"-L{cocotb_tools.config.libs_dir} -lcocotbvpi_verilator"),
        str(cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"),
        str(building / "core.v"),
    ]
    log = cache_directory() / f"{config.name}-testbench-build.log"
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=output, env=os.environ | tool.env, check=False)
    if done.returncode:
        shutil.rmtree(building, ignore_errors=True)
        raise RunError(f"building the test bench of {config.name!r} failed; see {log}")
    try:
        building.rename(folder)
    except OSError:
        # Another process was quicker; its result is the same.
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _run(
    config: Config, folder: Path, built: Path, expression: str | None, seed: int, *, waves: bool
) -> list[TestResult]:
    results = folder / "results.xml"
    libraries = filter(None, (str(cocotb_tools.config.libs_dir), os.environ.get("LD_LIBRARY_PATH")))
    runner = get_runner("verilator")
    # Either may come from a simulator that crashed; what it wrote until then is in the log.
    with contextlib.suppress(SystemExit, RuntimeError):
        runner.test(
            test_module=MODULES,
            hdl_toplevel=MODULE_NAME,
            hdl_toplevel_lang="verilog",
            build_dir=built,
            test_dir=folder,
            results_xml=str(results),
            seed=seed,
            test_filter=expression,
            waves=waves,
            log_file=folder / "simulation.log",
            extra_env={
                CONFIG_VARIABLE: json.dumps(config.to_dict()),
                "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            },
        )
    if not results.is_file():
        raise RunError(f"the simulation ended abnormally; see {folder / 'simulation.log'}")
    return [_result(case) for case in ET.parse(results).getroot().iter("testcase")]


def _result(case: ET.Element) -> TestResult:
    problem = next((child for child in case if child.tag in ("failure", "error")), None)
    message = "" if problem is None else (problem.get("error_msg") or problem.get("message") or "").split("\n")[0]
    name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
    return TestResult(name, problem is None, message, float(case.get("time", "0")))

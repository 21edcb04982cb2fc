# SPDX-License-Identifier: Apache-2.0
"""`loomwork bench`: networks of a folder on the RTL, its figures, and the files it writes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from loomwork.arch.config import PRESETS, Config
from loomwork.arch.registers import COUNTERS
from loomwork.cli import benchmark, benchmark_page
from loomwork.cli.benchmark_causes import ACCUMULATORS, NO_WORK, PARTIAL, REFILL, TICKETS, WEIGHTS, largest, lost_cycles
from loomwork.cli.benchmark_networks import Network, find_networks, find_target
from loomwork.sim.backend import RunError
from tests.programs import network

MACS = 6 * 6 * 6 * 27 + 54 * 5


def fake_row(name: str = "net", config: str = "base", **changes: object) -> benchmark.Row:
    """What `measure` returns."""
    row: benchmark.Row = {
        "name": name,
        "config": config,
        "exact": True,
        "images": 1,
        "macs": 5000,
        "executed_macs": 5000,
        "array_bound": 20,
        "bound": 30,
        "compulsory_bytes": 700,
        "cycles": 110,
        "utilization": 0.25,
        "read_bytes": 900,
        "write_bytes": 16,
        "causes": [{"cause": "weather", "cycles": 80}],
        "counters": {},
        "required": None,
        "aim": None,
        "cycles_per_second": 1,
        "host_operators": ["SOFTMAX a"],
    }
    return row | changes


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replaces measuring; holds the networks and configurations asked for."""
    asked: list[tuple[str, str]] = []

    def measure(net: Network, config: Config, **_: object) -> benchmark.Row:
        asked.append((net.title, config.name))
        return fake_row(net.title, config.name)

    monkeypatch.setattr(benchmark, "measure", measure)
    return asked


# On the RTL


def test_every_network_of_a_folder_is_measured(workspace: Path, loomwork):
    (workspace / "models" / "more").mkdir(parents=True)
    shutil.copy("net.tflite", "models/one.tflite")
    shutil.copy("net.tflite", "models/more/two.tflite")
    Path("models/broken.tflite").write_bytes(network()[:300])
    files = ("--json", "bench.json", "--markdown", "bench.md", "--record", "cycles.json")
    selection = ("-k", "one", "-k", "two", "-k", "broken")
    finished = loomwork("bench", "--models", "models", "-c", "tiny", "--images", 1, *selection, *files)
    assert finished.code == 0, finished
    written = json.loads(Path("bench.json").read_text())
    assert written["latency"] == 40
    rows = {row["name"]: row for row in written["results"]}
    assert sorted(rows) == ["broken", "one", "two"]

    assert rows["broken"]["exact"] is None
    assert rows["broken"]["refused"].startswith("the file is truncated or damaged")
    (line,) = [line for line in finished.out.splitlines() if "broken" in line and "│" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["broken", "tiny", *[""] * 9, "refused"]
    assert finished.out.endswith(f"\nrefused: broken on tiny: {rows['broken']['refused']}\n")

    one = rows["one"]
    assert one["exact"] is True
    assert (one["macs"], one["executed_macs"], one["images"]) == (MACS, MACS, 1)
    # Weights of both layers; a bias for each of their channels; the image, and what SOFTMAX reads.
    assert one["compulsory_bytes"] == (162 + 270) + 4 * (6 + 5) + 6 * 6 * 3 + 5
    assert one["bound"] == -(-MACS // 16)
    assert one["bound"] < one["cycles"]
    assert one["utilization"] == pytest.approx(MACS / one["cycles"] / 16)
    assert one["read_bytes"] + one["write_bytes"] > one["compulsory_bytes"]
    assert one["write_bytes"] == 8  # 5 bytes in beats of 4
    assert one["host_operators"] == ["SOFTMAX softmax_3"]
    assert (one["required"], one["aim"]) == (None, None)
    assert sorted(one["counters"]) == sorted(name for name, _ in COUNTERS)
    assert 0 < sum(entry["cycles"] for entry in one["causes"]) <= one["cycles"] - one["bound"]
    # The same but for how fast this machine was.
    speed = {"cycles_per_second": one["cycles_per_second"]}
    assert one["cycles_per_second"] > 0
    assert {**rows["two"], "name": "one", **speed} == one
    assert f"one on tiny: {one['cycles']:,} cycles, {one['cycles_per_second']:,} simulated per second" in finished.err

    cycles = {"one": one["cycles"], "two": one["cycles"]}
    assert json.loads(Path("cycles.json").read_text()) == {"latency": 40, "cycles": {"tiny": cycles}}
    page = Path("bench.md").read_text()
    assert re.search(rf"^\| one \| SOFTMAX softmax_3 \| yes \| {MACS:,} \|.* {one['cycles']:,} \|", page, re.MULTILINE)
    assert f"\n## Refused\n\n- broken on tiny: {rows['broken']['refused']}\n" in page
    assert "simulated" not in page


def test_a_bit_that_differs_fails_and_is_not_recorded(workspace: Path, loomwork, monkeypatch: pytest.MonkeyPatch):
    right = benchmark.reference_outputs

    def wrong(*arguments):
        return {name: np.zeros_like(value) for name, value in right(*arguments).items()}

    monkeypatch.setattr(benchmark, "reference_outputs", wrong)
    (workspace / "net.tflite").rename("mine.tflite")
    files = ("--json", "bench.json", "--record", "cycles.json")
    finished = loomwork("bench", "--models", ".", "-k", "mine", "-c", "tiny", "--images", 1, *files)
    assert finished.code == 1
    assert "NO" in finished.out
    assert json.loads(Path("bench.json").read_text())["results"][0]["exact"] is False
    assert not Path("cycles.json").exists()


def test_a_network_that_stops_the_engine_fails_and_the_others_go_on(
    workspace: Path, loomwork, monkeypatch: pytest.MonkeyPatch
):
    right = benchmark.run_program

    def stop_first(program, *arguments):
        if program.report["model"] == "first":
            raise RunError("the engine stopped")
        return right(program, *arguments)

    monkeypatch.setattr(benchmark, "run_program", stop_first)
    (workspace / "net.tflite").rename("first.tflite")
    shutil.copy("first.tflite", "second.tflite")
    finished = loomwork("bench", "--models", ".", "-k", "first", "-k", "second", "-c", "tiny", "--json", "-")
    assert finished.code == 1
    assert "failed: first on tiny: the engine stopped\n" in finished.err
    rows = {row["name"]: row for row in json.loads(finished.out)["results"]}
    assert (rows["first"]["exact"], rows["first"]["failed"]) == (False, "the engine stopped")
    assert (rows["second"]["exact"], rows["second"]["images"]) == (True, 2)


# Which networks


def test_networks_are_those_of_the_folder_and_the_built_in_ones(
    workspace: Path, loomwork, measured: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOOMWORK_MODELS", str(workspace))
    shutil.copy("net.tflite", "other.tflite")
    assert loomwork("bench", "-c", "tiny", "-c", "small").code == 0
    names = ("net", "other", "resnet50_shaped")
    assert measured == [(name, config) for config in ("tiny", "small") for name in names]
    measured.clear()
    assert loomwork("bench", "-k", "the").code == 0
    assert measured == [("other", "base")]


def test_without_any_folder_the_built_in_ones_remain(workspace: Path, loomwork, measured, monkeypatch):
    monkeypatch.delenv("LOOMWORK_MODELS", raising=False)
    inside = workspace / "deep" / "down"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    finished = loomwork("bench")
    assert (finished.code, measured) == (0, [("resnet50_shaped", "base")])
    assert "there is no folder ../shared/models: only what comes along is measured" in finished.err


def test_networks_of_one_name_are_told_apart(tmp_path: Path):
    for name in ("a/net", "b/net", "b/other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.tflite").write_bytes(name.encode())
    found = find_networks(tmp_path)
    assert [item.name for item in found] == ["a/net", "b/net", "other", "resnet50_shaped"]
    assert [item.load() for item in found[:3]] == [b"a/net", b"b/net", b"b/other"]


def test_dead_channels_are_measured_kept_as_well(monkeypatch: pytest.MonkeyPatch):
    def measure(net: Network, config: Config, **_: object) -> benchmark.Row:
        dead = 0 if net.keep_dead or net.name != "pruned" else 100
        return fake_row(net.title, config.name, executed_macs=5000 - dead)

    monkeypatch.setattr(benchmark, "measure", measure)
    networks = [Network(name, bytes) for name in ("pruned", "full")]
    rows = benchmark.measure_all(networks, [PRESETS["base"]], images=1, latency=40)
    assert [row["name"] for row in rows] == ["pruned", "pruned (dead channels kept)", "full"]


def test_the_compiler_is_told_to_keep_dead_channels(monkeypatch: pytest.MonkeyPatch):
    told: list[bool] = []

    def compile_model(model: bytes, config: Config, *, name: str, eliminate_dead: bool = True) -> None:
        told.append(eliminate_dead)
        raise benchmark.CompileError("that is all")

    monkeypatch.setattr(benchmark.driver, "compile_model", compile_model)
    for keep_dead in (False, True):
        benchmark.measure(Network("net", network, keep_dead), PRESETS["tiny"], images=1, latency=40)
    assert told == [True, False]


def test_targets_depend_on_what_is_executed():
    kept, removed = (find_target("vww_mbv1_025_int8", all_executed=executed) for executed in (True, False))
    assert kept is not None
    assert removed is not None
    assert (kept.required, removed.required) == (46_000, 27_000)
    assert find_target("resnet50_shaped", all_executed=True) == find_target("resnet50_shaped", all_executed=False)
    assert find_target("net", all_executed=True) is None


# What it writes


def test_json_goes_to_standard_output_where_no_file_is_named(workspace: Path, loomwork, measured):
    (workspace / "net.tflite").rename("mine.tflite")
    for options in (("--json",), ("--json", "-c", "base"), ("--json", "-")):
        finished = loomwork("bench", "--models", ".", "-k", "mine", *options)
        assert finished.code == 0
        assert json.loads(finished.out) == {"latency": 40, "results": [fake_row("mine")]}
    assert loomwork("bench", "--models", ".", "-k", "mine", "--json", "x.json", "-c", "base").code == 0
    assert json.loads(Path("x.json").read_text())["results"] == [fake_row("mine")]


def test_the_page_tells_whether_targets_are_reached():
    rows = [fake_row(str(cycles), cycles=cycles, required=20, aim=10) for cycles in (10, 11, 20, 21)]
    page = benchmark_page.markdown([*rows, fake_row("free", "small")], 40)
    assert "loomwork bench --config base --config small --markdown docs/benchmarks.md\n" in page
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    verdicts = {line[0]: line[-1] for line in cells if line[1] == "base"}
    assert verdicts == {"10": "aim", "11": "required", "20": "required", "21": "NO"}
    assert "\n- free, small: 80 cycles: 80 weather\n" in page


def test_a_reason_is_given_once_for_all_configurations():
    refused = [{"name": "a", "config": config, "exact": None, "refused": "no"} for config in ("base", "small")]
    failed = {"name": "b", "config": "base", "exact": False, "failed": "stopped"}
    page = benchmark_page.markdown([*refused, failed], 40)
    assert page.endswith("\n## Refused\n\n- a on base, small: no\n\n## Failed\n\n- b on base: stopped\n")


def test_many_host_operators_are_counted():
    rows = [fake_row("two", host_operators=["A a", "B b"]), fake_row("three", host_operators=["A a", "B b", "C c"])]
    page = benchmark_page.markdown(rows, 40)
    assert "| two | A a, B b |" in page
    assert "| three | A a and 2 more |" in page


def test_records_are_put_into_the_file_that_is_there(workspace: Path, loomwork, measured):
    (workspace / "net.tflite").rename("mine.tflite")
    before = {"base": {"mine": 5, "other": 6}, "small": {"mine": 7}}
    Path("cycles.json").write_text(json.dumps({"latency": 40, "cycles": before}))
    options = ("-k", "mine", "-c", "tiny", "-c", "base", "--record", "cycles.json")
    assert loomwork("bench", "--models", ".", *options).code == 0
    after = {"base": {"mine": 110, "other": 6}, "small": {"mine": 7}, "tiny": {"mine": 110}}
    assert json.loads(Path("cycles.json").read_text()) == {"latency": 40, "cycles": after}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"latency": 9, "cycles": {}}', "records holds cycles for a latency of 9, these are for 40"),
        ("{", "records does not hold recorded cycles, as `loomwork bench --record` writes them"),
        ("[]", "records does not hold recorded cycles"),
        ('{"latency": 40}', "records does not hold recorded cycles"),
        ('{"latency": 40, "cycles": {"base": {"net": "5"}}}', "records does not hold recorded cycles"),
    ],
)
def test_a_file_of_something_else_is_kept(content: str, sentence: str, workspace: Path, loomwork, measured):
    Path("records").write_text(content)
    finished = loomwork("bench", "--models", ".", "--record", "records")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith(f"error: {sentence}")
    assert measured == []
    assert Path("records").read_text() == content


# Where the cycles go


def counters(**changes: int) -> dict[str, int]:
    """Counters of 1,000 cycles, of which EXECUTE has work in 900."""
    values = {
        "cycles": 1000,
        "execute_busy": 900,
        "array_active": 700,
        "execute_wait_weights": 50,
        "execute_wait_accumulator": 30,
        "execute_wait_ticket": 60,
    }
    return values | changes


def test_lost_cycles_add_up_to_those_above_the_bound():
    lost = lost_cycles(counters(), array_bound=600, bound=600)
    assert lost == {PARTIAL: 100, WEIGHTS: 50, ACCUMULATORS: 30, TICKETS: 60, NO_WORK: 40, REFILL: 120}
    assert sum(lost.values()) == 1000 - 600


def test_tickets_are_blamed_for_no_more_than_the_cycles_without_command():
    lost = lost_cycles(counters(execute_wait_ticket=450), array_bound=600, bound=600)
    assert (lost[TICKETS], lost[NO_WORK], lost[REFILL]) == (100, 0, 120)
    # The array takes its last pixels when EXECUTE is done.
    lost = lost_cycles(counters(array_active=880), array_bound=600, bound=600)
    assert (lost[TICKETS], lost[NO_WORK], lost[REFILL]) == (40, 0, 0)
    assert sum(lost.values()) == 1000 - 600


def test_the_wait_for_weights_that_the_bus_needs_is_not_lost():
    lost = lost_cycles(counters(array_active=300, execute_wait_weights=500), array_bound=250, bound=770)
    assert lost == {PARTIAL: 0, WEIGHTS: 30, ACCUMULATORS: 30, TICKETS: 60, NO_WORK: 40, REFILL: 70}
    assert sum(lost.values()) == 1000 - 770


def test_the_largest_causes_come_first():
    found = largest({"a": 3, "b": 0, "c": 9, "d": -4, "e": 5, "f": 4})
    assert found == [{"cause": "c", "cycles": 9}, {"cause": "e", "cycles": 5}, {"cause": "f", "cycles": 4}]
    assert largest({"a": 0, "b": 2}) == [{"cause": "b", "cycles": 2}]

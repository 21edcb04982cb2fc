# SPDX-License-Identifier: Apache-2.0
"""No change makes a network slower unnoticed: cycles on the RTL against those recorded, and the page against both.

Cycles are exact and the same on every machine, so that this tests the compiler and the hardware, not the time.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from loomwork.arch.config import PRESETS
from loomwork.cli.benchmark import measure
from loomwork.cli.benchmark_networks import BUILT_IN, Network
from loomwork.cli.benchmark_page import read_record
from loomwork.compiler.driver import compile_model
from loomwork.sim.cycles import predict_program
from tests.models import CHECKOUT, model_path

RECORD = CHECKOUT / "tests" / "golden" / "cycles.json"
PAGE = CHECKOUT / "docs" / "benchmarks.md"
CONFIGS = ("small", "base")
NETWORKS = {
    "ad_autoencoder_int8": "mlperf_tiny",
    "ic_resnet8_int8": "mlperf_tiny",
    "kws_dscnn_int8": "mlperf_tiny",
    "vww_mbv1_025_int8": "mlperf_tiny",
    "micro_speech_quantized": "tflite",
}
"""Folder of each network that runs in seconds."""
LONG: dict[str, Callable[[], bytes]] = {
    "tf2_mobilenet_v2_1.0_224_ptq": lambda: model_path("tflite/tf2_mobilenet_v2_1.0_224_ptq.tflite").read_bytes(),
    **{network.name: network.load for network in BUILT_IN},
}
"""Networks that take minutes on the RTL: here the cycle model, which agrees with it to the cycle, stands for it."""
KEPT = " (dead channels kept)"
TOLERANCE = 1.01
RENEW = (
    "if that is intended, record anew: loomwork bench -c small -c mid -c base -c large "
    "--markdown docs/benchmarks.md --record tests/golden/cycles.json"
)


def recorded() -> dict[str, dict[str, int]]:
    """Cycles by configuration and network."""
    return read_record(RECORD)["cycles"]


def verdict(title: str, config: str, cycles: int, record: int) -> str:
    """What is wrong with the measured cycles; empty when nothing is."""
    if cycles <= record * TOLERANCE:
        return ""
    return (
        f"{title} takes {cycles:,} cycles on {config}, {cycles / record - 1:.1%} above the recorded {record:,}; {RENEW}"
    )


CASES = [(title, config) for config in CONFIGS for title in recorded()[config] if title.removesuffix(KEPT) not in LONG]


@pytest.mark.parametrize(("title", "config"), CASES)
def test_no_network_needs_more_cycles_than_recorded(title: str, config: str):
    name = title.removesuffix(KEPT)
    path = model_path(f"{NETWORKS[name]}/{name}.tflite")
    network = Network(name, path.read_bytes, keep_dead=title.endswith(KEPT))
    row = measure(network, PRESETS[config], images=1, latency=read_record(RECORD)["latency"])
    assert row["exact"], row
    problem = verdict(title, config, row["cycles"], recorded()[config][title])
    assert not problem, problem


@pytest.mark.parametrize("name", LONG)
def test_no_long_network_needs_more_cycles_than_recorded(name: str):
    program = compile_model(LONG[name](), PRESETS["base"], name=name)
    cycles = sum(prediction.cycles for prediction in predict_program(program, exact=True))
    problem = verdict(name, "base", cycles, recorded()["base"][name])
    assert not problem, problem


def test_every_network_is_recorded():
    for config in CONFIGS:
        assert {title.removesuffix(KEPT) for title in recorded()[config]} == {*NETWORKS, *LONG}


def test_more_than_a_hundredth_above_the_record_fails():
    assert verdict("net", "base", 1010, 1000) == ""
    assert verdict("net", "base", 500, 1000) == ""
    assert verdict("net", "base", 1011, 1000).startswith(
        "net takes 1,011 cycles on base, 1.1% above the recorded 1,000;"
    )


def figures(page: Path) -> dict[str, dict[str, int]]:
    """Cycles on the page, by configuration and network."""
    found: dict[str, dict[str, int]] = {}
    for section in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = section.splitlines()
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
        if heading in PRESETS and rows:
            place = rows[0].index("cycles")
            found[heading] = {
                row[0]: int(row[place].replace(",", "")) for row in rows[1:] if re.match(r"\d", row[place])
            }
    return found


def test_the_page_shows_the_recorded_cycles():
    assert figures(PAGE) == recorded(), RENEW

# SPDX-License-Identifier: Apache-2.0
"""`loomwork report`: the page, its figures, and what they are made from."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loomwork.arch.isa import COMMAND_BYTES
from loomwork.arch.program import AcceleratorStep, Program
from loomwork.arch.program_file import program_fingerprint, read_program, write_program
from loomwork.arch.registers import COUNTERS
from loomwork.cli.figures import svg
from loomwork.cli.measurement import read_measurement
from loomwork.cli.report_data import gather
from loomwork.cli.report_figures import FIGURES, draw_figures, joined_commands
from loomwork.sim.backend import Event, StepStatistics
from loomwork.sim.trace import chrome_trace
from tests.programs import copy_program, two_input_program

HOSTILE = ['<b onclick="x">$_{$&', "größe \N{GRINNING FACE} \x01\x9f", "]]></style><script>alert(1)</script>"]
VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page as a browser sees it: its elements, what it refers to, its text, and the cells of its rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are not closed"

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.references += [url for _, value in attrs for url in re.findall(r"url\(([^)]*)\)", value or "")]
        self.ids += [value for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += " ".join(data.split())

    def row(self, name: str) -> list[str]:
        (found,) = [row for row in self.rows if len(row) > 5 and row[1] == name]
        return found


@pytest.fixture
def net(workspace: Path, loomwork) -> Program:
    """The small network as net.lwb: CONV_2D + MAX_POOL_2D and FULLY_CONNECTED on tiny, SOFTMAX on the host.

    Without predicted cycles, which tests add where they want some.
    """
    assert loomwork("compile", "net.tflite", "-o", "net.lwb", "-c", "tiny").code == 0
    program = read_program(Path("net.lwb"))
    assert "predicted_cycles" in program.report["totals"]
    report = {
        **program.report,
        "layers": [unpredicted(layer) for layer in program.report["layers"]],
        "totals": unpredicted(program.report["totals"]),
    }
    Path("net.lwb").write_bytes(write_program(replace(program, report=report)))
    return read_program(Path("net.lwb"))


def unpredicted(entry: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry.items() if key != "predicted_cycles"}


def statistics(program: Program) -> StepStatistics:
    """A run of 1000 cycles: the first layer ends at 640, the second at 990."""
    (step,) = [step for step in program.steps if isinstance(step, AcceleratorStep)]
    first, second = (layer["commands"] for layer in program.report["layers"][:2])
    events = [
        Event(unit="LOAD", offset=first[0] * COMMAND_BYTES, start=10, end=60),
        Event(unit="STREAM", offset=first[1] * COMMAND_BYTES, start=12, end=300),
        Event(unit="STREAM", offset=second[0] * COMMAND_BYTES, start=20, end=900),
        Event(unit="EXECUTE", offset=first[2] * COMMAND_BYTES, start=70, end=600),
        Event(unit="DRAIN", offset=first[-1] * COMMAND_BYTES, start=80, end=640),
        Event(unit="EXECUTE", offset=second[1] * COMMAND_BYTES, start=650, end=980),
        Event(unit="DRAIN", offset=second[2] * COMMAND_BYTES, start=650, end=990),
    ]
    assert all(event.offset < len(step.commands) for event in events)
    counters = dict.fromkeys((name for name, _ in COUNTERS), 0)
    busy = {"load_busy": 50, "stream_busy": 880, "execute_busy": 860, "drain_busy": 900, "array_active": 500}
    return StepStatistics(counters={**counters, "cycles": 1000, "read_beats": 400, **busy}, events=events)


def write_measurements(program: Program) -> None:
    """stats.json of three images and trace.json, as `loomwork run` writes them."""
    run = statistics(program)
    counts = [{**run.counters, "cycles": cycles} for cycles in (1200, 900, 1000)]
    root = {
        "backend": "verilator",
        "program": program_fingerprint(program),
        "cycles_per_image": [1200, 900, 1000],
        "steps": [[count] for count in counts],
    }
    Path("stats.json").write_text(json.dumps(root))
    Path("trace.json").write_text(json.dumps(chrome_trace(program, [run])))


def test_the_page_needs_no_other_file(net: Program, loomwork):
    write_measurements(net)
    finished = loomwork("report", "net.lwb", "-o", "net.html", "--json", "stats.json", "--trace", "trace.json")
    assert (finished.code, finished.out, finished.err) == (0, "wrote net.html\n", "")
    page = Page(Path("net.html").read_text(encoding="utf-8"))
    assert page.elements.count("svg") == len(FIGURES)
    assert {"script", "img", "link", "iframe", "object", "image"}.isdisjoint(page.elements)
    assert page.references
    assert all(reference.startswith("#") for reference in page.references), set(page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "default-src 'none'" in Path("net.html").read_text(encoding="utf-8")


def test_the_page_tells_what_the_report_says(net: Program, loomwork):
    assert loomwork("report", "net.lwb", "-o", "net.html").code == 0
    page = Page(Path("net.html").read_text(encoding="utf-8"))
    convolution, dense, softmax = net.report["layers"]
    row = page.row(convolution["name"])
    macs, channels = 6 * 6 * 6 * 27, 3
    # number, name, operator, where, MACs, bound, array, utilization, streamed, read, written, tiles
    assert row[:6] == ["1", convolution["name"], "CONV_2D + MAX_POOL_2D", "accelerator", f"{macs:,}", "365"]
    assert macs / 16 == 364.5
    assert row[7] == "–"
    assert int(row[9].replace(",", "")) >= int(row[8].replace(",", "")) + 6 * 6 * channels
    assert page.row(dense["name"])[4] == f"{6 * 3 * 3 * 5:,}"
    assert page.row(dense["name"])[10] == "8"  # 5 results, in beats of 4 bytes
    (host,) = [row for row in page.rows if row[:2] == ["3", softmax["name"]]]
    assert host[3] == "host"
    assert host[4].startswith(softmax["reason"])
    assert host[4].endswith("(5 bytes in, 5 out)")
    for text in (net.report["model"], "tiny", f"{net.config.hash:016x}", program_fingerprint(net), "predicted"):
        assert text in page.text
    assert "Timeline" not in page.text
    assert page.elements.count("svg") == 3


def test_measured_cycles_are_those_of_the_files(net: Program, loomwork):
    write_measurements(net)
    assert loomwork("report", "net.lwb", "-o", "both.html", "--json", "stats.json", "--trace", "trace.json").code == 0
    page = Page(Path("both.html").read_text(encoding="utf-8"))
    first, second = net.report["layers"][:2]
    # ..., bound, array, measured, utilization
    assert page.row(first["name"])[7:9] == ["640", f"{5832 / (640 * 16):.1%}"]
    assert page.row(second["name"])[7:9] == ["360", f"{270 / (360 * 16):.1%}"]
    assert page.row("total")[7:9] == ["1,000", f"{(5832 + 270) / 16000:.1%}"]
    assert "median of 3 images" in page.text
    assert "waits for room in the weight queue, or bus" in page.text

    assert loomwork("report", "net.lwb", "-o", "trace.html", "--trace", "trace.json").code == 0
    assert Page(Path("trace.html").read_text(encoding="utf-8")).row(first["name"])[7] == "640"

    assert loomwork("report", "net.lwb", "-o", "stats.html", "--json", "stats.json").code == 0
    page = Page(Path("stats.html").read_text(encoding="utf-8"))
    assert page.row(first["name"])[7] == "–"
    assert page.row("total")[7] == "1,000"
    assert "share of 1,000 cycles" in page.text
    assert "Timeline" not in page.text


def test_predicted_cycles_are_shown_where_the_compiler_knows_them(net: Program, loomwork):
    first, second, softmax = net.report["layers"]
    layers = [{**first, "predicted_cycles": 700, "dead_macs": 1234}, {**second, "predicted_cycles": 333}, softmax]
    Path("new.lwb").write_bytes(write_program(replace(net, report={**net.report, "layers": layers})))
    assert loomwork("report", "new.lwb", "-o", "new.html").code == 0
    page = Page(Path("new.html").read_text(encoding="utf-8"))
    # number, name, operator, where, MACs, dead, bound, array, predicted, utilization
    assert page.row(first["name"])[5] == "1,234"
    assert page.row(first["name"])[8:10] == ["700", f"{5832 / (700 * 16):.1%}"]
    assert page.row("total")[8] == "1,033"
    assert "Cycles predicted by the cycle model; nothing was measured" in page.text

    totals = {**net.report["totals"], "predicted_cycles": 1033, "predicted_exactly": False}
    estimated = replace(net, report={**net.report, "layers": layers, "totals": totals})
    Path("large.lwb").write_bytes(write_program(estimated))
    assert loomwork("report", "large.lwb", "-o", "large.html").code == 0
    page = Page(Path("large.html").read_text(encoding="utf-8"))
    assert "Cycles predicted by the cycle model, about; nothing was measured" in page.text

    write_measurements(net)  # what is executed is the same
    assert loomwork("report", "new.lwb", "-o", "both.html", "--trace", "trace.json").code == 0
    page = Page(Path("both.html").read_text(encoding="utf-8"))
    assert page.row(first["name"])[8:11] == ["700", "640", f"{5832 / (640 * 16):.1%}"]


def test_feature_maps_may_lie_in_several_places_or_in_none(net: Program, loomwork):
    first, *others = net.report["memory"]
    memory = [first, {**first, "base": 50, "first_layer": 1, "last_layer": 1}, {"map": "outside"}, *others]
    report = {"layers": net.report["layers"], "memory": [*memory, {**first, "first_layer": 99}]}
    data = gather(replace(net, report=report), None, name="net.lwb")
    assert len(data.regions) == len(net.report["memory"]) + 1
    assert [region.first for region in data.regions if region.base == 50] == [2]
    Path("odd.lwb").write_bytes(write_program(replace(net, report=report)))
    assert loomwork("report", "odd.lwb", "-o", "odd.html").code == 0


def test_layers_of_every_step_are_numbered_as_in_the_table(workspace: Path):
    layers = [{"name": str(index), "step": step, "commands": [0]} for index, step in enumerate((0, 7, 1, 1))]
    memory = [
        {"step": 0, "map": "a", "base": 0, "words": 1, "first_layer": 0, "last_layer": 0},
        {"step": 1, "map": "b", "base": 0, "words": 1, "first_layer": 0, "last_layer": 1},
    ]
    program = replace(two_input_program(), report={"layers": layers, "memory": memory})
    regions = gather(program, None, name="x").regions
    assert [(region.label, region.first, region.last) for region in regions] == [("a", 1, 1), ("b", 3, 4)]


def test_names_are_text_and_nothing_else(net: Program, loomwork):
    layers = [{**layer, "name": name} for layer, name in zip(net.report["layers"], HOSTILE, strict=True)]
    layers[2]["reason"] = HOSTILE[0]
    memory = [{**entry, "map": HOSTILE[index % 3]} for index, entry in enumerate(net.report["memory"])]
    report = {**net.report, "model": HOSTILE[2], "layers": layers, "memory": memory}
    program = replace(net, report=report)
    Path("bad.lwb").write_bytes(write_program(program))
    write_measurements(program)
    finished = loomwork("report", "bad.lwb", "-o", "bad.html", "--trace", "trace.json", "--figures", "figures")
    assert (finished.code, finished.err) == (0, "")
    text = Path("bad.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.elements
    assert "b" not in page.elements[page.elements.index("table") :]
    shown = [
        name.replace("\x01", "\N{REPLACEMENT CHARACTER}").replace("\x9f", "\N{REPLACEMENT CHARACTER}")
        for name in HOSTILE
    ]
    assert all(escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text for name in shown)
    assert page.rows[3][4].startswith(HOSTILE[0])
    assert "\x01" not in text


def test_figures_are_png_files_too(net: Program, loomwork):
    write_measurements(net)
    options = ("report", "net.lwb", "-o", "net.html", "--trace", "trace.json", "--figures", "plots/paper")
    finished = loomwork(*options)
    assert finished.code == 0
    assert sorted(Path("plots/paper").iterdir()) == [Path(f"plots/paper/{name}.png") for name in sorted(FIGURES)]
    assert all(f"plots/paper/{name}.png" in finished.out for name in FIGURES)
    for name in FIGURES:
        with Image.open(f"plots/paper/{name}.png") as image:
            image.load()
            assert image.size[0] == 1800
            assert np.asarray(image.convert("RGB")).min(axis=(0, 1)).max() < 60  # text and axes are drawn
            assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_the_same_input_gives_the_same_bytes(net: Program, loomwork):
    write_measurements(net)
    options = ("report", "net.lwb", "--trace", "trace.json", "-o")
    assert loomwork(*options, "a.html", "--figures", "a").code == 0
    code = "from loomwork.cli.main import main; main()"
    for seed in ("1", "2"):
        arguments = [sys.executable, "-c", code, *options, f"{seed}.html", "--figures", seed]
        path = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "HOME": str(Path.cwd()), "TZ": "Asia/Tokyo"}
        subprocess.run(arguments, check=True, capture_output=True, env=path)
        assert Path(f"{seed}.html").read_bytes() == Path("a.html").read_bytes()
        for name in FIGURES:
            assert Path(seed, f"{name}.png").read_bytes() == Path("a", f"{name}.png").read_bytes()


def test_figures_take_the_colours_of_the_page(net: Program):
    write_measurements(net)
    data = gather(net, read_measurement(net, None, Path("trace.json")), name="net.lwb")
    for name, draw in draw_figures(data).items():
        text = svg(draw, name)
        assert "currentColor" in text
        assert not re.findall(r"#(?:000000|ffffff|010203|040506)", text), name


def test_the_timeline_shows_every_unit_and_layer(net: Program):
    write_measurements(net)
    data = gather(net, read_measurement(net, Path("stats.json"), Path("trace.json")), name="net.lwb")
    text = svg(draw_figures(data)["timeline"], "timeline")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert [label for label in labels if label.isupper()] == ["LOAD", "STREAM", "EXECUTE", "DRAIN"]
    assert sorted(label for label in labels if label in ("1", "2")) == ["1", "1", "2", "2"]


def test_commands_of_a_layer_are_joined_and_the_older_one_is_shown():
    pieces = [(5, 10, 1), (7, 12, 1), (9, 20, 2), (23, 30, 2), (34, 40, 2), (35, 38, 3), (50, 60, 3)]
    assert joined_commands(pieces, 3) == [(5, 12, 1), (12, 30, 2), (34, 40, 2), (50, 60, 3)]


def test_a_run_measures_what_the_files_say(net: Program, loomwork):
    np.save("image.npy", np.zeros((6, 6, 3), np.int8))
    run = ("run", "net.lwb", "-i", "image.npy", "-o", "y.npy", "--backend", "verilator", "--counters")
    shown = loomwork(*run, "--json", "stats.json", "--trace", "trace.json")
    assert shown.code == 0
    cycles = json.loads(Path("stats.json").read_text())["cycles_per_image"][0]
    assert loomwork("report", "net.lwb", "-o", "files.html", "--json", "stats.json", "--trace", "trace.json").code == 0
    assert loomwork("report", "net.lwb", "-o", "run.html", "--run").code == 0
    files, now = (Page(Path(name).read_text(encoding="utf-8")) for name in ("files.html", "run.html"))
    # How long it takes does not depend on the values.
    assert files.rows == now.rows
    assert now.row("total")[7] == f"{cycles:,}"
    layers = [int(now.row(layer["name"])[7].replace(",", "")) for layer in net.report["layers"][:2]]
    assert sum(layers) == cycles
    assert all(layer["bound_cycles"] < own for layer, own in zip(net.report["layers"], layers, strict=False))
    assert "one random input, 40 cycles of read latency" in now.text
    # The same figures on the terminal.
    counters = json.loads(Path("stats.json").read_text())["steps"][0][0]
    (found,) = [line for line in shown.out.splitlines() if "finished sums" in line]
    line = [cell.strip() for cell in found.strip("│").split("│")]
    waited = counters["drain_wait_accumulator"]
    assert line[1:] == ["waits for", "finished sums", f"{waited:,}", f"{waited / cycles:.1%}"]


# Errors


def changed(path: str, **values: object) -> None:
    root = json.loads(Path(path).read_text())
    root.update(values)
    Path(path).write_text(json.dumps(root))


def event_of_no_command() -> None:
    root = json.loads(Path("trace.json").read_text())
    next(event for event in root["traceEvents"] if event["ph"] == "X" and event["cat"] == "command")["args"] = {
        "command": 1 << 20
    }
    Path("trace.json").write_text(json.dumps(root))


STATS, TRACE = ("--json", "stats.json"), ("--trace", "trace.json")
MISTAKES = {
    "no report": (lambda: None, "copy.lwb carries no report of its layers: compile the", ("copy.lwb",)),
    "golden": (lambda: changed("stats.json", cycles_per_image=None), "stats.json holds no cycles: make it with", STATS),
    "other stats": (
        lambda: changed("stats.json", program="0" * 16),
        "stats.json was measured on another program",
        STATS,
    ),
    "other trace": (
        lambda: Path("trace.json").write_text(json.dumps(chrome_trace(copy_program(), [StepStatistics()]))),
        "trace.json was measured on another program",
        TRACE,
    ),
    "old stats": (
        lambda: changed("stats.json", program=None),
        "stats.json does not say on which program it was",
        STATS,
    ),
    "old trace": (
        lambda: changed("trace.json", otherData=[]),
        "trace.json does not say on which program it was",
        TRACE,
    ),
    "no JSON": (lambda: Path("stats.json").write_text("{"), "stats.json is not a JSON file: ", STATS),
    "a list": (lambda: Path("stats.json").write_text("[1]"), "stats.json must hold a JSON object", STATS),
    "bytes": (lambda: Path("trace.json").write_bytes(b"\xff\xfe"), "trace.json is not a JSON file: ", TRACE),
    "a trace as stats": (lambda: None, "trace.json is not a statistics file of", ("--json", "trace.json")),
    "stats as a trace": (lambda: None, "stats.json is not a trace of `loomwork run", ("--trace", "stats.json")),
    "no image": (
        lambda: changed("stats.json", cycles_per_image=[], steps=[]),
        "stats.json is not a statistics file of `loomwork run --json`: its cycles or counters are incomplete",
        STATS,
    ),
    "no counter": (lambda: changed("stats.json", steps=[[{}]] * 3), "stats.json is not a statistics file", STATS),
    "no step": (lambda: changed("stats.json", steps=[[]] * 3), "stats.json is not a statistics file", STATS),
    "odd events": (lambda: changed("trace.json", traceEvents=[{"ph": 3}]), "trace.json is not a trace", TRACE),
    "no command": (event_of_no_command, "trace.json is not a trace of `loomwork run --trace`: its events", TRACE),
    "both": (lambda: None, "--run measures anew: give either --run, or", ("--run", *STATS)),
    "missing": (lambda: None, "none.json: No such file or directory", ("--json", "none.json")),
    "no folder": (lambda: None, "cannot write none/r.html: there is no folder none", ("-o", "none/r.html")),
    "lost program": (lambda: None, "cannot write net.lwb: it is the same file as an input", ("-o", "net.lwb")),
    "lost stats": (lambda: None, "cannot write stats.json: it is the same file", ("-o", "stats.json", *STATS)),
    "figures": (lambda: None, "cannot write into net.lwb: it is not a folder", ("--figures", "net.lwb")),
    "two in one": (
        lambda: None,
        "cannot write roofline.png and roofline.png: two results",
        ("-o", "roofline.png", "--figures", "."),
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_and_writes_nothing(case: str, net: Program, loomwork):
    prepare, sentence, arguments = MISTAKES[case]
    write_measurements(net)
    prepare()
    before = {path: path.read_bytes() for path in Path().iterdir()}
    program = () if arguments[0].endswith(".lwb") else ("net.lwb",)
    output = () if "-o" in arguments else ("-o", "r.html")
    finished = loomwork("report", *program, *arguments, *output)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith(f"error: {sentence}"), finished.err
    assert finished.err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_full_disk_leaves_no_half_page(net: Program, loomwork, monkeypatch: pytest.MonkeyPatch):
    Path("r.html").write_text("old")
    before = sorted(Path().iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    finished = loomwork("report", "net.lwb", "-o", "r.html")
    assert (finished.code, finished.err) == (2, "error: cannot write r.html: No space left on device\n")
    assert Path("r.html").read_text() == "old"
    assert sorted(Path().iterdir()) == before


def test_png_bytes_carry_no_date_or_version(net: Program, loomwork):
    assert loomwork("report", "net.lwb", "-o", "r.html", "--figures", "f").code == 0
    with Image.open(io.BytesIO(Path("f/memory.png").read_bytes())) as image:
        image.load()
        assert set(image.info) <= {"dpi"}

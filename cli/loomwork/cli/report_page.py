# SPDX-License-Identifier: Apache-2.0
"""The page of `loomwork report`: one HTML file that needs nothing else, from the template beside this file."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Undefined
from markupsafe import Markup

from loomwork.arch.config import BANKS
from loomwork.arch.program import Program, Tensor
from loomwork.arch.program_file import program_fingerprint
from loomwork.cli.counters import KINDS
from loomwork.cli.figures import Draw, svg
from loomwork.cli.report_data import ReportData, engine_bytes, printable
from loomwork.cli.report_figures import FIGURES, draw_figures

CLOCK_MHZ = 100
"""The clock for which the page gives a latency; other clocks are in proportion."""
UNKNOWN = "–"
COLUMNS_BEHIND_WHERE = 8
"""Columns of the table of layers that a host operator leaves free, without the optional ones."""


def page(data: ReportData, drawings: Mapping[str, Draw] | None = None) -> str:
    """The report as HTML; the same text for the same data. drawings: the figures, all that there are by default."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    formats: dict[str, Any] = {"number": number, "percent": percent, "share": share}
    environment.filters.update(formats)
    source = files("loomwork.cli").joinpath("report_page.html").read_text(encoding="utf-8")
    drawn = {name: Markup(svg(draw, name)) for name, draw in (drawings or draw_figures(data)).items()}
    own = [layer for layer in data.layers if not layer.on_host]
    columns = {
        "dead": any(layer.facts.get("dead_macs") for layer in own),
        "predicted": any(layer.predicted is not None for layer in own),
        "measured": any(layer.measured is not None for layer in own) or data.measured is not None,
    }
    sums = {
        "macs": _total(data, "macs"),
        "dead": _total(data, "dead_macs"),
        "bound": _total(data, "bound_cycles"),
        "array": _total(data, "array_cycles"),
        "streamed": _total(data, "streamed_bytes"),
        "tiles": _total(data, "tiles"),
        "read": sum(layer.read_bytes for layer in own),
        "written": sum(layer.written_bytes for layer in own),
    }
    return environment.from_string(source).render(
        data=data,
        config=data.config,
        fingerprint=program_fingerprint(data.program),
        cards=_cards(data, sums),
        drawn={name: drawn.get(name) for name in FIGURES},
        columns={**columns, "wide": COLUMNS_BEHIND_WHERE + sum(columns.values())},
        most=max([layer.cycles or 0 for layer in own], default=0),
        sums=sums,
        kinds=KINDS,
        units_total=sum(part.cycles for part in data.units[0].parts) if data.units else 0,
        banks=BANKS,
        tensors=_tensors(data.program),
    )


def number(value: object) -> str:
    """A whole number with separators; a dash for what is not known."""
    return f"{value:,}" if isinstance(value, int) else UNKNOWN


def percent(value: float | None) -> str:
    """A fraction in percent."""
    if value is None or isinstance(value, Undefined):
        return UNKNOWN
    return "< 0.1%" if 0 < value < 0.0005 else f"{value:.1%}"


def share(value: int | None, total: int) -> str:
    """A part of a total as CSS length."""
    return f"{100 * (value or 0) / total:.2f}%" if total else "0%"


def _cards(data: ReportData, sums: Mapping[str, int | None]) -> list[dict[str, str]]:
    cycles, macs, bound = data.cycles, sums["macs"] or 0, sums["bound"]
    exact = data.totals.get("predicted_exactly", True)
    kind = "measured" if data.measured is not None else "predicted" if exact else "predicted, about"
    on_host = sum(layer.on_host for layer in data.layers)
    peak = data.totals.get("scratchpad_bytes")
    cards: list[tuple[str, str]] = []
    if cycles is not None:
        cards += [
            (number(cycles), f"cycles {kind}, from start to done"),
            (f"{cycles / CLOCK_MHZ / 1000:.3g} ms", f"at {CLOCK_MHZ} MHz, without the host"),
        ]
        cards.append((percent(data.utilization(macs, cycles)), f"of {data.config.macs_per_cycle} MAC per cycle used"))
    if cycles and bound:
        cards.append((f"{cycles / bound:.2f}x", f"the bound of {number(bound)} cycles"))
    else:
        cards.append((number(bound), "cycles that no such design can beat"))
    cards += [
        (number(macs), "multiply-accumulates"),
        (f"{len(data.layers) - on_host}", f"layers on the accelerator, {on_host or 'none'} on the host"),
        (f"{(sums['read'] or 0) / 1024:,.1f} KiB", "read for data and weights, per image"),
        (f"{engine_bytes(data.program) / 1024:,.1f} KiB", "of commands and constants"),
    ]
    if isinstance(peak, int):
        cards.append((f"{peak / 1024:,.1f} KiB", f"of {data.config.scratchpad_kib} KiB scratchpad in use at most"))
    return [{"value": value, "label": label} for value, label in cards]


def _total(data: ReportData, key: str) -> int | None:
    """From the report's totals, or else the sum over the layers that know it."""
    if isinstance(total := data.totals.get(key), int):
        return total
    known: list[Any] = [layer.facts[key] for layer in data.layers if key in layer.facts]
    return sum(known) if known else None


def _tensors(program: Program) -> list[tuple[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in program.tensors}
    return [
        (role, {**vars(tensors[name]), "name": printable(name)})
        for role, names in (("input", program.inputs), ("output", program.outputs))
        for name in names
    ]

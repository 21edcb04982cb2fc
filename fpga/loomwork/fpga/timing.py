# SPDX-License-Identifier: Apache-2.0
"""The slowest path of a netlist, by OpenSTA. Before layout: wires cost nothing, the clock comes at once everywhere."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loomwork.fpga.yosys import SynthesisError

HOW_TO_GET = "OpenSTA's `sta` is not on PATH: `apt install opensta` (Debian, Ubuntu)"
"""What to tell when there is no OpenSTA."""

_MARK = "loomwork"
_SCRIPT = """\
{libraries}
{netlists}
set link_make_black_boxes 0
link_design {top}
create_clock -name clk -period {period} [get_ports clk]
{borders}
foreach end [find_timing_paths -path_delay max] {{
  set start [get_property [get_property $end startpoint] full_name]
  puts "{mark} path [get_property $end slack] $start [get_property [get_property $end endpoint] full_name]"
}}
puts "{mark} done"
"""
_BORDERS = "set_input_delay 0 -clock clk [all_inputs]\nset_output_delay 0 -clock clk [all_outputs]"
_PATH = re.compile(rf"^{_MARK} path (-?[\d.]+(?:[eE][+-]?\d+)?) (\S+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class SlowestPath:
    """delay: ns, the shortest period with which it meets its setup time. start, end: pins or ports."""

    delay: float
    start: str
    end: str

    @property
    def frequency(self) -> float:
        """MHz."""
        return 1000 / self.delay


@dataclass(frozen=True)
class Sta:
    """An OpenSTA that can be called. version: as it says, such as "2.0.17"."""

    command: str
    version: str


def find_sta() -> Sta | None:
    """The OpenSTA to use; None when there is none that runs."""
    found = shutil.which("sta")
    if found is None:
        return None
    try:
        done = subprocess.run([found, "-version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return Sta(found, done.stdout.strip())


def slowest_path(
    sta: Sta, netlists: Sequence[Path], top: str, libraries: Sequence[Path], *, period: float, borders: bool
) -> SlowestPath | None:
    """The path that limits the clock `clk` of a netlist; None when no register drives another.

    netlists: Verilog, of which `top` is the outermost module. libraries: Liberty of all its cells, of one corner.
    period: ns, of the clock that is assumed; the result depends on it only by rounding. borders: count paths from and
    to ports too, as if there were registers right outside.
    Raises SynthesisError with the first error that OpenSTA names.
    """
    script = _SCRIPT.format(
        libraries="\n".join(f"read_liberty {{{path.resolve()}}}" for path in libraries),
        netlists="\n".join(f"read_verilog {{{path.resolve()}}}" for path in netlists),
        top=top,
        period=period,
        borders=_BORDERS if borders else "",
        mark=_MARK,
    )
    with tempfile.TemporaryDirectory(prefix="loomwork-timing-") as directory:
        path = Path(directory) / "timing.tcl"
        path.write_text(script, encoding="utf-8")
        command = [sta.command, "-no_init", "-no_splash", "-exit", str(path)]
        # In one stream: of several errors the first is the cause.
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return read_report(done.stdout, period)


def read_report(text: str, period: float) -> SlowestPath | None:
    """The slowest path of what the script printed; None when it printed none.

    Raises SynthesisError when OpenSTA reported an error, after which some versions go on, or did not come to the end.
    """
    error = re.search(r"^.*\bError: *(.*)$", text, re.MULTILINE)
    if error is not None or f"{_MARK} done" not in text:
        last = error[1] if error else next((line for line in reversed(text.splitlines()) if line), "no message")
        raise SynthesisError(f"OpenSTA failed: {last}")
    paths = [SlowestPath(period - float(slack), start, end) for slack, start, end in _PATH.findall(text)]
    return max(paths, key=lambda path: path.delay, default=None)

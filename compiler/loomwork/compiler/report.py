# SPDX-License-Identifier: Apache-2.0
"""What the compiler found out about a network: a dictionary of JSON values, and the same as a table for people.

- `model`, `configuration`: names.
- `layers`, in the order of execution. Of each: `name`, `operator` (as in the model), `where` ("accelerator" or "host"),
  `step` (of the program). On the host, `reason`, `macs` (those of operators that multiply matrices, else 0), and
  `bytes_in` and `bytes_out`: what each image hands over to the run of host operators that this one is part of, and
  back. On the accelerator,
  `commands`: their numbers within the step; `tiles`: DRAIN commands;
  `macs`: multiply-accumulates of the network as given (the array also multiplies by padding);
  `dead_channels`, `dead_macs`: that the compiler removed, because no output depends on them (for a fused layer,
  channels of the convolution's result); `executed_macs`: those that are left, but for `skipped_macs`: of the weight
  tiles that are left out because they are zero; `weight_tiles`, `skipped_tiles`: how many there are, and are left out;
  `weight_bytes`: of the channels that are left; `parameter_bytes`: their biases, multipliers and shifts, once;
  `streamed_bytes`: as read from external memory for all tiles, weights and parameters;
  `parts`: into which the layer is divided because no row of it fits the scratchpad, 1 where one does;
  `scratchpad_bytes`: in use while the layer runs;
  `array_cycles`: in which pixels or weights occupy the array, if nothing ever stalls;
  `bound_cycles`: that no design with as many MAC units and as wide a bus can beat (the larger of both quotients, of
  what is executed).
- `totals`: sums of these (of `scratchpad_bytes` the largest), and `accelerator_layers`, `host_operators`, `host_macs`.
- `memory`, of each feature map: `step`, `map`, `height`, `width`, `channels`, `base`, `pitch`, `words` (of each bank),
  `first_layer` and `last_layer` of its life, `whole`: or else a band through which its rows pass.

The cycle model adds `predicted_cycles` to layers and totals, and `predicted_exactly` to totals (sim/cycles).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS, Config
from loomwork.arch.isa import params_words
from loomwork.arch.program import Program, Tensor
from loomwork.arch.reduction import depthwise_columns, depthwise_passes, pass_count
from loomwork.arch.skip import executed_passes
from loomwork.compiler.fused import FusedConvolution
from loomwork.compiler.graph import Convolution, Graph, HostPart, Layer
from loomwork.compiler.mapping import map_convolution
from loomwork.compiler.sparsity import block_runs, left_out_weights
from loomwork.compiler.storage import Storage
from loomwork.compiler.task import Task
from loomwork.compiler.tiling import channel_groups
from loomwork.compiler.views import row_words
from loomwork.compiler.weights import params_mode

Entry = dict[str, Any]

_SUMMED = (
    *("macs", "executed_macs", "dead_macs", "dead_channels", "skipped_macs", "weight_tiles", "skipped_tiles"),
    *("weight_bytes", "parameter_bytes", "streamed_bytes", "tiles", "array_cycles", "bound_cycles"),
)

SHORT_NAME = 22
"""Characters of a layer's name in the summary."""


@dataclass(frozen=True, kw_only=True)
class CompiledGraph:
    """A graph on its way to an accelerator step.

    given: as imported. graph: as it was lowered, of the same maps with perhaps fewer channels. allocation: where they
    lie. tasks: the commands in order.
    """

    given: Graph
    graph: Graph
    storage: Storage
    tasks: Sequence[Task]


def build_report(
    name: str, config: Config, parts: Sequence[CompiledGraph | HostPart], tensors: Sequence[Tensor]
) -> Entry:
    """Describe all parts of a program, in the order of its steps. tensors: those between the parts."""
    sizes = {tensor.name: prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in tensors}
    layers: list[Entry] = []
    memory: list[Entry] = []
    for step, part in enumerate(parts):
        if isinstance(part, HostPart):
            layers += [
                {
                    "name": operator,
                    "operator": operator,
                    "where": "host",
                    "reason": reason,
                    "macs": macs,
                    "step": step,
                    "bytes_in": sum(sizes[tensor] for tensor in part.inputs),
                    "bytes_out": sum(sizes[tensor] for tensor in part.outputs),
                }
                for (operator, reason), macs in zip(part.operators, part.macs, strict=True)
            ]
        else:
            layers += _layers(part, config, step)
            memory += _memory(part, config, step)
    accelerated = [layer for layer in layers if layer["where"] == "accelerator"]
    totals = {key: sum(layer[key] for layer in accelerated) for key in _SUMMED}
    totals["commands"] = sum(len(part.tasks) for part in parts if isinstance(part, CompiledGraph))
    totals["scratchpad_bytes"] = max((layer["scratchpad_bytes"] for layer in accelerated), default=0)
    totals["accelerator_layers"] = len(accelerated)
    totals["host_operators"] = len(layers) - len(accelerated)
    totals["host_macs"] = sum(layer["macs"] for layer in layers) - totals["macs"]
    return {"model": name, "configuration": config.name, "layers": layers, "totals": totals, "memory": memory}


def _layers(part: CompiledGraph, config: Config, step: int) -> list[Entry]:
    entries: list[Entry] = []
    given = {layer.output: layer for layer in part.given.layers}
    for indices in _divided_layers(part.graph):
        layer = part.graph.layers[indices[0]]
        own = [(position, task) for position, task in enumerate(part.tasks) if task.layer in indices]
        convolution = _convolution(layer)
        kernel = 0 if convolution is None else convolution.kernel.size
        # Fusion changes what a layer writes, but not what its convolution does.
        result = part.graph.maps[layer.output if convolution is None else convolution.output].whole
        macs, alive = _macs(_convolution(given[result]), part.given), _macs(convolution, part.graph)
        tiles = [_tiles(_convolution(part.graph.layers[index]), part.graph, config) for index in indices]
        skipped = sum(of_part.skipped_macs for of_part in tiles)
        executed = alive - skipped
        entries.append(
            {
                "name": layer.name,
                "operator": layer.operator,
                "where": "accelerator",
                "reason": "",
                "step": step,
                "commands": [position for position, _ in own],
                "tiles": sum(task.command.mnemonic == "DRAIN" for _, task in own),
                "macs": macs,
                "executed_macs": executed,
                "dead_macs": macs - alive,
                "dead_channels": part.given.maps[result].channels - part.graph.maps[result].channels,
                "skipped_macs": skipped,
                "weight_tiles": tiles[0].all,
                "skipped_tiles": tiles[0].skipped,
                "weight_bytes": kernel,
                "parameter_bytes": _parameter_bytes(convolution, part.graph),
                "streamed_bytes": sum(
                    task.command["words"] * config.cols for _, task in own if task.command.mnemonic == "STREAM"
                ),
                "parts": len(indices),
                "scratchpad_bytes": max(part.storage.words_at(i) for i in indices) * BANKS * config.rows,
                "array_cycles": _array_cycles([task.command for _, task in own], config),
                "bound_cycles": max(
                    ceil(executed / config.macs_per_cycle), ceil((kernel - tiles[0].skipped_weights) / config.bus_bytes)
                ),
            }
        )
    return entries


def _divided_layers(graph: Graph) -> list[range]:
    """Indices of the layers that are one layer of the network, in order: mostly one, or its parts."""
    groups: list[range] = []
    for index, layer in enumerate(graph.layers):
        whole = graph.maps[layer.output].whole
        if groups and graph.maps[graph.layers[groups[-1].start].output].whole == whole:
            groups[-1] = range(groups[-1].start, index + 1)
        else:
            groups.append(range(index, index + 1))
    return groups


def _memory(part: CompiledGraph, config: Config, step: int) -> list[Entry]:
    entries: list[Entry] = []
    numbers = {index: number for number, group in enumerate(_divided_layers(part.graph)) for index in group}
    for life, base in part.storage.lives.items():
        feature_map = part.graph.maps[life.map]
        entries.append(
            {
                "step": step,
                "map": life.map,
                "height": feature_map.height,
                "width": feature_map.width,
                "channels": feature_map.channels,
                "base": base,
                "pitch": row_words(feature_map, config),
                "words": life.words,
                "first_layer": numbers[life.first],
                "last_layer": numbers[life.last],
                "whole": life.band is None,
            }
        )
    return entries


def _convolution(layer: Layer) -> Convolution | None:
    if isinstance(layer, FusedConvolution):
        return layer.convolution
    return layer if isinstance(layer, Convolution) else None


def _macs(convolution: Convolution | None, graph: Graph) -> int:
    if convolution is None:
        return 0
    result = graph.maps[graph.maps[convolution.output].whole]
    return result.height * result.width * convolution.kernel.size


def _parameter_bytes(convolution: Convolution | None, graph: Graph) -> int:
    if convolution is None:
        return 0
    return graph.maps[convolution.output].channels * params_words(params_mode(convolution.requantize))


class _Tiles(NamedTuple):
    """Weight tiles of a convolution, how many are left out, and what is not loaded and not computed for it."""

    all: int = 0
    skipped: int = 0
    skipped_weights: int = 0
    skipped_macs: int = 0


def _tiles(convolution: Convolution | None, graph: Graph, config: Config) -> _Tiles:
    if convolution is None:
        return _Tiles()
    source, result = graph.maps[convolution.input], graph.maps[convolution.output]
    mapping = map_convolution(convolution, source, config)
    runs = [
        run
        for first, channels in channel_groups(result.channels, config.cols)
        for run in block_runs(convolution, mapping, source, config, first, channels)
    ]
    weights = left_out_weights(mapping, config, runs)
    return _Tiles(
        all=mapping.blocks * mapping.passes,
        skipped=sum(run.blocks * (mapping.passes - run.executed_passes(mapping)) for run in runs),
        skipped_weights=weights,
        skipped_macs=weights * result.height * result.width,
    )


def _array_cycles(commands: Sequence[Command], config: Config) -> int:
    """Cycles of all passes of these commands, as if nothing stalled."""
    cycles = 0
    skip = None
    for command in commands:
        match command.mnemonic:
            case "SKIP":
                skip = command
                continue
            case "CONVOLVE":
                passes = pass_count(config.rows, command["kernel_rows"], command["length"], command["row_step"])
                columns = command["tile_height"] * command["tile_width"]
            case "DEPTHWISE":
                cut = depthwise_passes(config.depthwise_groups, command["kernel_rows"], command["row_step"])
                passes = sum(1 for _ in cut)
                shape = (command[name] for name in ("tile_height", "tile_width", "x_stride", "taps", "shared"))
                columns = depthwise_columns(*shape)
            case _:
                continue
        executed = executed_passes(skip.operands if skip else None, command["tap_count"] * passes)
        cycles += command["blocks"] * len(executed) * max(columns, config.rows)
        skip = None
    return cycles


def summary(program: Program) -> RenderableType:
    """The report of a program for the terminal: a line per layer, the totals, then what runs on the host and why."""
    report = program.report
    if "layers" not in report:
        return Text("The program carries no report.")
    table = Table(
        title=Text(f"{report['model']} on {report['configuration']}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer", no_wrap=True)
    table.add_column("operator", min_width=12)
    columns = _columns(report["totals"])
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    on_host: list[Text] = []
    for layer in report["layers"]:
        if layer["where"] == "host":
            cost = f"{layer['bytes_in']:,} bytes in, {layer['bytes_out']:,} out"
            if layer["macs"]:
                share = layer["macs"] / (report["totals"]["macs"] + report["totals"]["host_macs"])
                cost = f"{share:.1%} of the MACs; {cost}"
            on_host.append(Text(f"on the host: {layer['name']}: {layer['reason']} ({cost})"))
        else:
            table.add_row(Text(short_name(layer["name"])), Text(layer["operator"]), *_numbers(layer, columns))
    table.add_section()
    table.add_row("total", "", *_numbers(report["totals"], columns))
    return Group(table, Text(_EXPLANATION + _predicted(report["totals"])), *_left_out(report["totals"]), *on_host)


def _predicted(totals: Mapping[str, Any]) -> str:
    """What the predicted cycles are, if there are any."""
    if "predicted_cycles" not in totals:
        return ""
    if totals.get("predicted_exactly", True):
        return f"{_PREDICTED}."
    return f"{_PREDICTED};\nabout {totals['predicted_cycles']:,} in all: so much work is estimated."


def _left_out(totals: Mapping[str, Any]) -> list[Text]:
    """What was left out, in words."""
    lines: list[Text] = []

    def share(macs: int) -> str:
        return f"{macs:,} MACs ({macs / totals['macs'] if totals['macs'] else 0:.1%})"

    if totals.get("dead_channels"):
        channels = f"{totals['dead_channels']:,} channels with {share(totals['dead_macs'])}"
        lines.append(Text(f"dead: {channels}, on which no output depends, are left out."))
    if totals.get("skipped_tiles"):
        tiles = f"{totals['skipped_tiles']:,} of {totals['weight_tiles']:,} weight tiles"
        lines.append(Text(f"skipped: {tiles} with {share(totals['skipped_macs'])} are zero and left out."))
    return lines


_EXPLANATION = (
    "array: cycles in which the array is occupied if nothing stalls; bound: cycles that no design with as many\n"
    "multipliers and as wide a bus can beat, layer by layer."
)
_PREDICTED = "\npredicted: cycles from the end of the layers before to the end of this one, by the cycle model"


_COLUMNS = {
    "macs": "MACs",
    "dead_macs": "dead",
    "skipped_macs": "skipped",
    "weight_bytes": "weights",
    "tiles": "tiles",
    "array_cycles": "array",
    "bound_cycles": "bound",
}
"""Figures of the summary with their headings."""


def _columns(totals: Mapping[str, Any]) -> dict[str, str]:
    """Those that a report has: `dead` and `skipped` only where there is something, predicted cycles once known."""
    sometimes = ("dead_macs", "skipped_macs")
    columns = {key: heading for key, heading in _COLUMNS.items() if key not in sometimes or totals.get(key)}
    return columns | ({"predicted_cycles": "predicted"} if "predicted_cycles" in totals else {})


def _numbers(entry: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [f"{entry[key]:,}" for key in keys]


def short_name(name: str) -> str:
    """The telling part of a tensor's name: converters join the names of all they fused, and lead with the path."""
    first = name.split(";", maxsplit=1)[0].split("/")
    short = "/".join(first[-2:])
    return short if len(short) <= SHORT_NAME else f"{short[: SHORT_NAME - 1]}…"

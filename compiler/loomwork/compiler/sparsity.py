# SPDX-License-Identifier: Apache-2.0
"""Which weight tiles of a convolution are left out: those that are zero, where leaving them out saves time.

A SKIP holds for one CONVOLVE and for all its blocks of output channels alike, so that blocks of different zeros need
commands of their own. Blocks that differ little share theirs: then a tile is executed that one of them does not need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import Config
from loomwork.arch.isa import COMMAND_BYTES, MASK_PASSES
from loomwork.arch.reduction import passes
from loomwork.compiler.graph import Convolution, FeatureMap
from loomwork.compiler.mapping import Mapping
from loomwork.compiler.weight_tiles import MAX_PASSES

COMMAND_CYCLES = 24
"""What a SKIP, a CONVOLVE and a DRAIN more cost about, apart from the bus: the drain's pause, and a beginning that may
not be hidden."""


@dataclass(frozen=True)
class BlockRun:
    """Neighbouring blocks of `cols` output channels in one CONVOLVE.

    first: channel; a multiple of `cols`. channels, blocks: how many. executed: of each pass of a block, whether it is
    executed; None when all are, and there is no SKIP.
    """

    first: int
    channels: int
    blocks: int
    executed: tuple[bool, ...] | None = None

    def executed_passes(self, mapping: Mapping) -> int:
        """Passes of each block that are executed."""
        return mapping.passes if self.executed is None else sum(self.executed)


def block_runs(
    layer: Convolution, mapping: Mapping, source: FeatureMap, config: Config, first: int, channels: int
) -> tuple[BlockRun, ...]:
    """The output channels `first .. first + channels - 1` as runs of blocks, in order.

    first: a multiple of `cols`.
    """
    blocks = range(first // config.cols, -(-(first + channels) // config.cols))
    everything = BlockRun(first, channels, len(blocks))
    reachable = not layer.depthwise and mapping.passes <= MAX_PASSES
    if not config.block_sparsity or not reachable:
        return (everything,)
    executed = [_executed(tiles) for tiles in _is_not_zero(layer, mapping, config)[blocks.start : blocks.stop]]
    if all(of_block.all() for of_block in executed):
        return (everything,)
    pixels = min(config.accumulator_depth, source.height * source.width // (layer.stride[0] * layer.stride[1]))
    runs: list[BlockRun] = []
    commands = COMMAND_CYCLES + 3 * COMMAND_BYTES // config.bus_bytes
    for start, of_run in _merged(executed, max(config.rows, pixels), commands):
        end = start + len(of_run)
        union = np.any(of_run, axis=0)
        begin = first + start * config.cols
        runs.append(
            BlockRun(
                begin,
                min(first + end * config.cols, first + channels) - begin,
                len(of_run),
                None if union.all() else tuple(union.tolist()),
            )
        )
    return tuple(runs)


def left_out_weights(mapping: Mapping, config: Config, runs: Sequence[BlockRun]) -> int:
    """Weights in the tiles that these runs leave out."""
    sizes = np.tile(_pass_sizes(mapping, config), mapping.tap_count)
    return sum(run.channels * int(sizes[~np.array(run.executed)].sum()) for run in runs if run.executed is not None)


def _pass_sizes(mapping: Mapping, config: Config) -> list[int]:
    """Bytes of the reduction that each pass of a tap takes."""
    cut = passes(config.rows, mapping.kernel_rows, mapping.length, mapping.row_step)
    return [sum(segment.length for segment in segments) for segments in cut]


def _is_not_zero(layer: Convolution, mapping: Mapping, config: Config) -> NDArray[np.bool_]:
    """Of each block and pass, whether its weight tile has anything but zeros: `[blocks, passes]`."""
    height, _, _, outputs = layer.kernel.shape
    weights = (layer.kernel != 0).reshape(height, mapping.tap_count, mapping.length, outputs).swapaxes(0, 1)
    blocks = np.logical_or.reduceat(weights, np.arange(0, outputs, config.cols), axis=3)
    reduction = blocks.reshape(mapping.tap_count, height * mapping.length, -1)
    starts = np.cumsum([0, *_pass_sizes(mapping, config)])[:-1]
    return np.logical_or.reduceat(reduction, starts, axis=1).reshape(mapping.passes, -1).T


def _executed(is_not_zero: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Passes of one block that have to be executed: one at least, and those that a SKIP cannot leave out."""
    needed = np.flatnonzero(is_not_zero)
    last = int(needed[-1]) if len(needed) else 0
    executed = is_not_zero.copy()
    executed[last] = True
    executed[MASK_PASSES:last] = True
    return executed


def _merged(
    executed: Sequence[NDArray[np.bool_]], cycles: int, commands: int
) -> list[tuple[int, list[NDArray[np.bool_]]]]:
    """Blocks in runs, each with its first block: neighbours join where the tiles that are then executed for nothing
    cost no more than commands.

    cycles, commands: what a pass costs, and the commands of one more run.
    """
    runs = [(number, [of_block]) for number, of_block in enumerate(executed)]
    place = 0
    while place + 1 < len(runs):
        (first, these), (_, those) = runs[place], runs[place + 1]
        a, b = np.any(these, axis=0), np.any(those, axis=0)
        # Behind a common last pass there is nothing, in front of it everything may have to be filled in.
        union = _executed(np.logical_or(a, b))
        for_nothing = (union.sum() - a.sum()) * len(these) + (union.sum() - b.sum()) * len(those)
        if for_nothing * cycles <= commands:
            runs[place : place + 2] = [(first, [union] * (len(these) + len(those)))]
            place = max(place - 1, 0)
        else:
            place += 1
    return runs

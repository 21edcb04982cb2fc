# SPDX-License-Identifier: Apache-2.0
"""Which weight tiles are left out, and which blocks share a mask."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from loomwork.arch.config import SMALL, Config
from loomwork.arch.isa import MASK_PASSES
from loomwork.arch.skip import executed_passes, skip_operands
from loomwork.compiler.graph import Convolution
from loomwork.compiler.mapping import map_convolution
from loomwork.compiler.sparsity import BlockRun, block_runs, left_out_weights
from loomwork.compiler.weight_tiles import MAX_PASSES
from tests.compiler.random_graphs import GraphMaker

SPARSE = replace(SMALL, block_sparsity=True)


def runs_of(
    executed: list[str], *, config: Config = SPARSE, side: int = 16, outputs: int | None = None
) -> tuple[tuple[BlockRun, ...], int]:
    """The runs of a 1x1 convolution, and the weights that they leave out.

    executed: for each block, a character for each pass: 1 where its tile is not zero. side: of the image.
    """
    passes, cols = len(executed[0]), config.cols
    maker = GraphMaker(1)
    source = maker.input(side, side, passes * config.rows)
    maker.convolution(source, outputs or len(executed) * cols, kernel=(1, 1))
    (layer,) = maker.layers
    assert isinstance(layer, Convolution)
    keep = np.array([[bit == "1" for bit in block] for block in executed])
    kernel: NDArray[np.int8] = np.where(keep.T.repeat(config.rows, 0).repeat(cols, 1), 1, 0).astype(np.int8)
    kernel = kernel[:, : outputs or len(executed) * cols]
    # One weight is enough.
    kernel[:, 1:][:: config.rows, :] = 0
    layer = replace(layer, kernel=kernel.reshape(1, 1, *kernel.shape))
    mapping = map_convolution(layer, maker.maps[source], config)
    assert mapping.passes == passes
    runs = block_runs(layer, mapping, maker.maps[source], config, 0, kernel.shape[1])
    return runs, left_out_weights(mapping, config, runs)


def shapes(runs: tuple[BlockRun, ...]) -> list[tuple[int, int, str]]:
    """First channel, channels, and executed passes of each run."""
    return [
        (run.first, run.channels, "".join(str(int(bit)) for bit in run.executed) if run.executed else "all")
        for run in runs
    ]


def test_blocks_have_masks_of_their_own_where_they_differ():
    runs, left_out = runs_of(["1010", "0001", "0001", "1111", "1111", "0000"], outputs=43)
    assert shapes(runs) == [(0, 8, "1010"), (8, 16, "0001"), (24, 16, "all"), (40, 3, "1000")]
    assert [run.blocks for run in runs] == [1, 2, 2, 1]
    assert left_out == SPARSE.rows * (2 * 8 + 3 * 16 + 3 * 3)


def test_without_zero_tiles_or_without_the_hardware_there_is_one_run():
    assert shapes(runs_of(["1111", "1111"])[0]) == [(0, 16, "all")]
    assert runs_of(["1010", "0001"], config=SMALL) == ((BlockRun(0, 16, 2),), 0)


def test_blocks_share_a_mask_where_a_pass_costs_less_than_commands():
    """Of an image of one pixel a pass takes as long as its weights: 8 cycles."""
    assert shapes(runs_of(["1011", "1010"], side=1)[0]) == [(0, 16, "1011")]
    assert shapes(runs_of(["1011", "1111"], side=1)[0]) == [(0, 16, "all")]
    assert len(runs_of(["1011", "1010"], side=16)[0]) == 2
    far = ["1" + "0" * 9, "0" + "1" * 9]
    assert len(runs_of(far, side=1)[0]) == 2


def test_passes_behind_the_mask_are_left_out_only_at_the_end():
    executed = "01" * (MASK_PASSES // 2) + "010" + "0" * 5
    ((_, _, found),) = shapes(runs_of([executed])[0])
    assert found == "01" * (MASK_PASSES // 2) + "110" + "0" * 5


@pytest.mark.parametrize("passes", [MAX_PASSES, MAX_PASSES + 1])
def test_endless_blocks_are_executed(passes: int):
    runs, _ = runs_of(["1" + "0" * (passes - 1)], config=replace(SPARSE, rows=2, cols=2, bus_bytes=2, requant_lanes=2))
    assert (runs[0].executed is None) == (passes > MAX_PASSES)


def test_what_a_skip_cannot_say_is_refused():
    for executed in ([], [False] * 3, [True] * MAX_PASSES + [True], [True] * MASK_PASSES + [False, True]):
        with pytest.raises(ValueError, match="a SKIP leaves out any of the first 192 passes and all behind a last one"):
            skip_operands(executed)


def test_operands_say_which_passes_are_executed():
    executed = [number % 3 == 1 for number in range(200)]
    executed[192:] = [True] * 4 + [False] * 4
    expected = tuple(number for number, is_executed in enumerate(executed) if is_executed)
    operands = skip_operands(executed)
    assert executed_passes(operands, 200) == expected
    assert operands["last"] == 195
    assert operands["mask_0"] == sum(1 << number for number in range(32) if number % 3 != 1)
    assert executed_passes(None, 3) == (0, 1, 2)
    with pytest.raises(ValueError, match="pass 195 is to be the last of a block, which has 100"):
        executed_passes(operands, 100)

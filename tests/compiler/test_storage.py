# SPDX-License-Identifier: Apache-2.0
"""Which maps stay in the scratchpad, where, and through which bands the others pass."""

from dataclasses import replace
from itertools import combinations

import pytest

from loomwork.arch.command import decode_program
from loomwork.arch.config import BANKS, BASE, FORMAL, SMALL, TINY, Config
from loomwork.arch.isa import Window
from loomwork.compiler.allocate import map_words
from loomwork.compiler.bands import pieces
from loomwork.compiler.driver import compile_graph
from loomwork.compiler.graph import AveragePool, CompileError, Graph, MaxPool
from loomwork.compiler.lower import lower
from loomwork.compiler.storage import Storage, plan_storage
from loomwork.compiler.streaming import piece_order, ring_slots
from loomwork.compiler.views import row_words
from loomwork.compiler.weights import ConstantPool
from tests.compiler.execution import check
from tests.compiler.hazards import check_hazards, conflicts, simulate
from tests.compiler.random_graphs import GraphMaker, random_graph

CRAMPED = replace(TINY, name="cramped", scratchpad_kib=2)
"""Little memory, so that small images already pass through bands."""


def storage_of(graph: Graph, config: Config) -> Storage:
    return plan_storage(lower(graph, config, ConstantPool()), graph, config)


@pytest.mark.parametrize("config", [SMALL, BASE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(30))
def test_maps_in_use_together_do_not_overlap(seed: int, config: Config) -> None:
    maker = random_graph(seed, layers=8)
    graph = maker.graph(list(maker.maps)[-1], list(maker.maps)[2])
    storage = storage_of(graph, config)
    base = storage.whole
    assert not storage.bands
    # Independent of `lifetimes`: walk the layers and note which maps hold something that is read later.
    for index, layer in enumerate(graph.layers):
        alive = {layer.output, layer.input}
        for name in graph.maps:
            made = name in graph.inputs or any(earlier.output == name for earlier in graph.layers[:index])
            first_use = min((i for i, later in enumerate(graph.layers) if name in _reads(later)), default=0)
            needed = any(name in _reads(later) for later in graph.layers[index:])
            if made and needed and (name not in graph.inputs or first_use <= index):
                alive.add(name)
        for one, other in combinations(sorted(alive), 2):
            ends = [base[name] + map_words(graph.maps[name], config) for name in (one, other)]
            assert ends[0] <= base[other] or ends[1] <= base[one], (index, one, other)
        assert max(base[name] + map_words(graph.maps[name], config) for name in alive) <= config.bank_words


def _reads(layer: object) -> list[str]:
    return [getattr(layer, "input", ""), getattr(layer, "operand", "")]


def test_memory_is_used_again() -> None:
    maker = GraphMaker(0)
    name = maker.input(16, 16, 8)
    for _ in range(20):
        name = maker.rescale(name)
    graph = maker.graph(name)
    storage = storage_of(graph, TINY)
    assert len(set(storage.whole.values())) < 10
    # Two maps of 16 rows of 128 bytes, in words of 4 bytes in 4 banks.
    assert storage.words_at(3) * 4 * 4 == 2 * 16 * 16 * 8


@pytest.mark.parametrize("seed", range(40))
def test_bands_and_maps_do_not_overlap(seed: int) -> None:
    maker = random_graph(seed, layers=6, largest=14)
    graph = maker.graph(list(maker.maps)[-1], list(maker.maps)[2])
    storage = storage_of(graph, CRAMPED)
    for index, layer in enumerate(graph.layers):
        taken = [(base, life.words) for life, base in storage.lives.items() if life.first <= index <= life.last]
        assert all(base + words <= CRAMPED.bank_words for base, words in taken)
        for (one, size), (other, other_size) in combinations(taken, 2):
            assert one + size <= other or other + other_size <= one
        for name in {layer.input, layer.output}:
            assert (name in storage.whole) != ((index, name) in storage.bands)


@pytest.mark.parametrize("seed", range(60))
def test_networks_larger_than_the_scratchpad_are_exact(seed: int) -> None:
    maker = random_graph(seed, layers=6, largest=14)
    check(maker, maker.graph(list(maker.maps)[-1], list(maker.maps)[2]), CRAMPED)


@pytest.mark.parametrize("seed", range(20))
def test_every_conflict_of_bands_is_ordered(seed: int) -> None:
    maker = random_graph(seed, layers=6, largest=14)
    step, _ = compile_graph(maker.graph(list(maker.maps)[-1], list(maker.maps)[-2]), CRAMPED)
    commands = decode_program(step.commands)
    check_hazards(commands, CRAMPED)
    pairs = conflicts(commands, CRAMPED)
    for run in range(3):
        spans = simulate(commands, CRAMPED, seed=run)
        assert all(spans[earlier][1] <= spans[later][0] for earlier, later in pairs)


def tall(maker: GraphMaker) -> Graph:
    """Every kind of layer on maps that cannot be whole in `CRAMPED`, with a residual connection."""
    first = maker.convolution(maker.input(40, 12, 4), 6, pad=(1, 1))
    second = maker.add(maker.convolution(first, 6, kernel=(1, 1)), first)
    third = maker.convolution(second, 6, pad=(1, 1), depthwise=True, stride=(2, 1))
    pooled = maker.pool(MaxPool, second, window=(3, 3), stride=(2, 2), pad=(1, 1), size=(20, 6))
    averaged = maker.pool(AveragePool, maker.rescale(second), window=(2, 2), stride=(2, 2))
    return maker.graph(third, pooled, averaged)


def test_every_kind_of_layer_passes_through_bands() -> None:
    maker = GraphMaker(3)
    graph = tall(maker)
    storage = storage_of(graph, CRAMPED)
    assert {layer for layer, _ in storage.bands} >= set(range(len(graph.layers)))
    for fuse in (True, False):
        check(maker, graph, CRAMPED, fuse=fuse)


def test_a_loaded_row_waits_until_it_is_stored() -> None:
    """External memory, too, is read after it is written: by the tickets alone, whatever the units' speed."""
    maker = GraphMaker(3)
    step, _ = compile_graph(tall(maker), CRAMPED)
    commands = decode_program(step.commands)
    stored: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    for position, command in enumerate(commands):
        if command.mnemonic in ("LOAD", "STORE") and command["window"] == Window.WORKSPACE:
            offsets = [command["offset"] + row * command["row_stride"] for row in range(command["rows"])]
            if command.mnemonic == "STORE":
                assert not stored.keys() & set(offsets)
                stored.update(dict.fromkeys(offsets, position))
            else:
                pairs += [(stored[offset], position) for offset in offsets]
    assert len(pairs) > 40
    for run in range(5):
        spans = simulate(commands, CRAMPED, seed=run)
        assert all(spans[store][1] <= spans[load][0] for store, load in pairs)


def test_what_fits_stays_in_the_scratchpad() -> None:
    """Of a large image and the small ones behind it, only the large one passes through bands: a pooling reads it."""
    maker = GraphMaker(4)
    large = maker.convolution(maker.input(64, 8, 4), 8, pad=(1, 1))
    small = maker.pool(AveragePool, large, window=(4, 4), stride=(4, 4))
    graph = maker.graph(maker.convolution(small, 4, pad=(1, 1)))
    config = replace(TINY, name="medium", scratchpad_kib=4)
    storage = storage_of(graph, config)
    assert large not in {*storage.whole, *storage.streamed}
    assert small in {*storage.whole, *storage.streamed}
    step, _ = compile_graph(graph, config)
    assert step.workspace_bytes == 64 * 8 * 8
    assert map_words(graph.maps[large], config) == 16 * row_words(graph.maps[large], config)


def test_what_only_convolutions_read_is_streamed() -> None:
    """However tall an image is: of all maps between the layers, external memory never sees a byte."""
    maker = GraphMaker(5)
    name = maker.convolution(maker.input(200, 8, 4), 8, pad=(1, 1))
    for stride in (1, 2, 1):
        name = maker.convolution(name, 8, pad=(1, 1), depthwise=True, stride=(stride, stride))
        name = maker.convolution(name, 8, kernel=(1, 1))
    shortcut = maker.convolution(name, 8, pad=(1, 1))
    graph = maker.graph(maker.add(maker.convolution(shortcut, 8, kernel=(1, 1)), shortcut))
    config = replace(TINY, name="medium", scratchpad_kib=6)
    step, compiled = compile_graph(graph, config)
    assert step.workspace_bytes == 0
    assert len(compiled.storage.streamed) >= 4
    assert max(len(run) for run in compiled.storage.runs) >= 4
    commands = decode_program(step.commands)
    assert any(command.mnemonic == "DEPTHWISE" and command["ring"] for command in commands)
    # Rings are used many times over: their rows wrap within a convolution.
    wraps = [
        c["y_start"] + (c["tile_height"] - 1) * c["y_step"] + c["kernel_rows"] > 4 * c["ring"]
        for c in commands
        if c.mnemonic in ("CONVOLVE", "DEPTHWISE") and c["ring"]
    ]
    assert sum(wraps) > 10
    check_hazards(commands, config)
    check(maker, graph, config)


def test_pieces_of_a_run_come_in_an_order_that_works() -> None:
    """Every row is made before it is read, and no ring loses a row that is still needed."""
    maker = GraphMaker(6)
    name = maker.input(60, 6, 4)
    for index in range(5):
        name = maker.convolution(name, 4, pad=(1, 1), stride=(1 + index % 2, 1))
    works = lower(maker.graph(name), SMALL, ConstantPool())
    for rows in (1, 2, 4, 8):
        order = piece_order(works, {work.index: pieces(work.height, rows) for work in works})
        assert sorted((work.index, part) for work, part in order) == [
            (work.index, part) for work in works for part in pieces(work.height, rows)
        ]
        for work in works[:-1]:
            output = work.layer.output
            kept = BANKS * ring_slots(order, [output])[output]
            made = 0
            for reader, part in order:
                if reader is work:
                    made = part.end
                elif output in reader.needs(part):
                    need = reader.needs(part)[output]
                    assert made - kept <= need.first
                    assert need.end <= made
            assert kept <= 8 + 4 * rows


@pytest.mark.parametrize("seed", [47, 61, 156, 195, 286])
def test_maps_of_one_row_that_leave_no_gap_for_the_next_make_room(seed: int) -> None:
    """All maps of the layer fit, but not where the places of the ones around them leave free words."""
    maker = GraphMaker(seed)
    name = maker.input(1, maker.random.randint(4, 20), 4)
    for _ in range(4):
        channels = maker.random.choice([2, 4, 6])
        branch = maker.convolution(name, channels, kernel=(1, 3), pad=(0, 1))
        other = maker.convolution(name, channels, kernel=(1, 1))
        if maker.random.random() < 0.7:
            name = maker.add(branch, other)
        else:
            name = branch
            maker.rescale(other)
    check(maker, maker.graph(name), replace(TINY, name="scant", scratchpad_kib=1))


def test_a_layer_of_which_no_row_fits_is_refused() -> None:
    maker = GraphMaker(0)
    graph = maker.graph(maker.dense(maker.input(9, 140, 16), 16))
    message = (
        r"layer 'layer0' \(CONVOLUTION\): one row of its output needs \d+\.\d KiB of scratchpad for rows of "
        r"'m0' \(9x140x16\), 'm1' \(1x1x16\), but configuration tiny has 16 KiB; choose one with a larger"
    )
    with pytest.raises(CompileError, match=message):
        compile_graph(graph, TINY)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 70000), "has 70000 bytes per row, the command set has room for 65520"),
        ((5000, 1, 1), "has 5000 rows, the command set has room for 4095"),
    ],
)
def test_a_map_larger_than_commands_can_say_is_refused(shape: tuple[int, int, int], message: str) -> None:
    maker = GraphMaker(0)
    with pytest.raises(CompileError, match=f"feature map 'm0' .* {message}"):
        storage_of(maker.graph(maker.rescale(maker.input(*shape))), BASE)


def test_the_smallest_configuration_refuses_politely() -> None:
    maker = random_graph(3, layers=3)
    with pytest.raises(CompileError, match="configuration formal has 1 KiB"):
        storage_of(maker.graph(maker.rescale(maker.input(1, 200, 8))), FORMAL)

# SPDX-License-Identifier: Apache-2.0
"""Addresses of feature maps in the scratchpad and in external memory."""

from itertools import combinations

import pytest

from loomwork.arch.config import BASE, FORMAL, SMALL, TINY, Config
from loomwork.compiler.allocate import allocate, map_words, place_external, scratchpad_bytes
from loomwork.compiler.graph import CompileError
from tests.compiler.random_graphs import GraphMaker, random_graph


@pytest.mark.parametrize("config", [SMALL, BASE], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", range(30))
def test_maps_in_use_together_do_not_overlap(seed: int, config: Config) -> None:
    maker = random_graph(seed, layers=8)
    graph = maker.graph(list(maker.maps)[-1], list(maker.maps)[2])
    base = allocate(graph, config).base
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
    allocation = allocate(graph, TINY)
    assert len(set(allocation.base.values())) < 10
    assert scratchpad_bytes(graph, TINY, 3) == 2 * 16 * 16 * 8


def test_words_round_up_rows_and_banks() -> None:
    maker = GraphMaker(0)
    name = maker.input(5, 3, 3)
    # 9 bytes are three words of 4; rows 0 and 4 share bank 0.
    assert map_words(maker.maps[name], TINY) == 6


def test_a_model_that_does_not_fit_is_refused_with_the_layer_that_needs_most() -> None:
    maker = GraphMaker(0)
    wide = maker.convolution(maker.input(32, 32, 4), 16, kernel=(1, 1))
    graph = maker.graph(maker.convolution(wide, 4, kernel=(1, 1)))
    message = (
        r"does not fit: layer 'layer0' \(CONVOLUTION\) needs 20.0 KiB of scratchpad for 'm0' \(32x32x4\), "
        r"'m1' \(32x32x16\), but configuration tiny has 16 KiB; choose one with a larger scratchpad_kib \(at least 20\)"
    )
    with pytest.raises(CompileError, match=message):
        allocate(graph, TINY)


def test_a_model_that_fits_nowhere_is_refused_without_advice_that_cannot_be_followed() -> None:
    maker = GraphMaker(0)
    graph = maker.graph(maker.rescale(maker.input(1000, 1000, 1)))
    with pytest.raises(CompileError, match=r"has 256 KiB; as no configuration can have so much, .* smaller images$"):
        allocate(graph, BASE)


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
        allocate(maker.graph(maker.rescale(maker.input(*shape))), BASE)


def test_external_tensors_are_aligned_and_apart() -> None:
    maker = GraphMaker(0)
    names = [maker.input(3, 5, 3), maker.input(1, 1, 70), maker.input(7, 1, 1)]
    places = place_external(maker.graph(), names, SMALL)
    assert [(p.offset, p.row_stride, p.rows, p.row_bytes) for p in places] == [
        (0, 16, 3, 15),
        (64, 72, 1, 70),
        (192, 8, 7, 1),
    ]


def test_the_smallest_configuration_refuses_politely() -> None:
    maker = random_graph(3, layers=3)
    with pytest.raises(CompileError, match="configuration formal has 1 KiB"):
        allocate(maker.graph(maker.rescale(maker.input(20, 20, 8))), FORMAL)

# SPDX-License-Identifier: Apache-2.0
"""Sizes of feature maps in the scratchpad, and places of tensors in external memory."""

from loomwork.arch.config import SMALL, TINY
from loomwork.compiler.allocate import map_words, place_external
from tests.compiler.random_graphs import GraphMaker


def test_words_round_up_rows_and_banks() -> None:
    maker = GraphMaker(0)
    name = maker.input(5, 3, 3)
    # 9 bytes are three words of 4; rows 0 and 4 share bank 0.
    assert map_words(maker.maps[name], TINY) == 6


def test_external_tensors_are_aligned_and_apart() -> None:
    maker = GraphMaker(0)
    names = [maker.input(3, 5, 3), maker.input(1, 1, 70), maker.input(7, 1, 1)]
    places = place_external(maker.graph(), names, SMALL)
    assert [(p.offset, p.row_stride, p.rows, p.row_bytes) for p in places] == [
        (0, 16, 3, 15),
        (64, 72, 1, 70),
        (192, 8, 7, 1),
    ]

# SPDX-License-Identifier: Apache-2.0
"""Names in messages."""

import pytest

from loomwork.compiler.names import LONGEST, readable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv", "'conv'"),
        ("net/block_1/relu;net/block_1/batch_norm;net/block_1/conv", "'net/block_1/relu'"),
        (";", "';'"),
        ("", "''"),
    ],
)
def test_a_name_is_quoted_and_its_aliases_left_out(name: str, shown: str) -> None:
    assert readable(name) == shown


def test_of_a_long_name_the_end_remains() -> None:
    shown = readable("scope/" * 30 + "conv")
    assert shown.startswith("'…")
    assert shown.endswith("scope/conv'")
    assert len(shown) == LONGEST + 2

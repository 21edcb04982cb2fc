# SPDX-License-Identifier: Apache-2.0
"""Where rows of feature maps lie in the scratchpad at the time a command touches them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from loomwork.arch.config import BANKS, Config
from loomwork.compiler.graph import FeatureMap
from loomwork.compiler.task import Region


def row_words(feature_map: FeatureMap, config: Config) -> int:
    """Scratchpad words of one image row."""
    return ceil(feature_map.row_bytes / config.rows)


@dataclass(frozen=True)
class View:
    """Image row `y` of a map is row `y - origin` of a tensor at word `base`.

    origin: a multiple of BANKS, so that rows keep their banks; 0 where the whole map lies in the scratchpad.
    ring: groups of BANKS rows after which they begin at `base` again, once; 0 = never.
    """

    feature_map: FeatureMap
    base: int
    origin: int = 0
    ring: int = 0


class Views:
    """The views of all maps that the commands of one piece touch.

    Commands count rows from the origin of the map they name. Where one command counts the rows of two maps together,
    both are counted from `origin(one, other)`.
    """

    def __init__(self, config: Config, views: Mapping[str, View]) -> None:
        self.config = config
        self._views = dict(views)

    def origin(self, *names: str) -> int:
        """The image row from which rows of these maps can be counted together."""
        return max(self._views[name].origin for name in names)

    def base(self, name: str, origin: int | None = None) -> int:
        """First word of the map in each bank, for rows counted from `origin` (its own when absent)."""
        view = self._views[name]
        if origin is None:
            return view.base
        return view.base + (origin - view.origin) // BANKS * self.pitch(name)

    def ring(self, name: str) -> int:
        """Groups of BANKS rows after which they begin again; 0 = never."""
        return self._views[name].ring

    def pitch(self, name: str) -> int:
        """Words from image row y to y + 4."""
        return row_words(self._views[name].feature_map, self.config)

    def region(self, name: str, row: int, rows: int, first_byte: int = 0, end_byte: int | None = None) -> Region:
        """The words that hold bytes `first_byte .. end_byte - 1` (the whole row when absent) of some image rows."""
        view = self._views[name]
        end = view.feature_map.row_bytes if end_byte is None else end_byte
        word = first_byte // self.config.rows
        return Region(
            map=name,
            base=view.base,
            pitch=self.pitch(name),
            row=row - view.origin,
            rows=rows,
            word=word,
            words=ceil(end / self.config.rows) - word,
            ring=view.ring,
        )

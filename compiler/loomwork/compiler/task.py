# SPDX-License-Identifier: Apache-2.0
"""What lowering produces: commands together with the scratchpad words they touch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.command import Command
from loomwork.arch.config import BANKS


@dataclass(frozen=True, kw_only=True)
class Region:
    """Words `word .. word + words - 1` of image rows `row .. row + rows - 1` of one feature map in the scratchpad.

    base, pitch: where the map lies, as in the commands. ring: groups of BANKS rows after which they begin at `base`
    again, once; 0 = never.
    """

    map: str
    base: int
    pitch: int
    row: int
    rows: int
    word: int
    words: int
    ring: int = 0

    @property
    def end_row(self) -> int:
        """The row behind the last one."""
        return self.row + self.rows

    def addresses(self, bank_words: int) -> NDArray[np.int64]:
        """The region's words, each as `bank * bank_words + word in the bank`."""
        rows = np.arange(self.row, self.end_row)
        slots = rows // BANKS
        if self.ring:
            slots = np.where(slots >= self.ring, slots - self.ring, slots)
        starts = rows % BANKS * bank_words + self.base + slots * self.pitch + self.word
        return (starts[:, np.newaxis] + np.arange(self.words)).ravel()


@dataclass(frozen=True, kw_only=True)
class ExternalRows:
    """Rows `first .. end - 1` of a map in external memory."""

    map: str
    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command before its tickets are known.

    layer: index in the graph. reads, writes: scratchpad words it touches. external: rows that a LOAD reads or a STORE
    writes.
    """

    command: Command
    layer: int
    reads: tuple[Region, ...] = ()
    writes: tuple[Region, ...] = ()
    external: ExternalRows | None = None

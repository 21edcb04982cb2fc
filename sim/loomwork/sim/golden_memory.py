# SPDX-License-Identifier: Apache-2.0
"""Memories of the golden model: scratchpad and weight stream, for many images at once."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loomwork.arch.config import BANKS, Config
from loomwork.arch.registers import ErrorCode

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class StopError(Exception):
    """A command that cannot go on, before its offset is known."""

    code: ErrorCode
    message: str


class Scratchpad:
    """Activation memory of `images` images.

    Bytes are named by image row and byte in the row of a tensor at `base` and `pitch` (see arch/isa.py).
    """

    def __init__(self, config: Config, images: int) -> None:
        self._config = config
        self._bank_bytes = config.bank_words * config.rows
        self._data = np.zeros((images, BANKS * self._bank_bytes), dtype=np.uint8)

    def read(
        self,
        base: int,
        pitch: int,
        row: Integers,
        byte: Integers,
        used: NDArray[np.bool_] | bool = True,
        *,
        ring: int = 0,
    ) -> NDArray[np.int8]:
        """Bytes as `[images, *shape of row and byte, broadcast]`; those not `used` hold anything.

        ring: groups of rows after which they begin again, once; 0 = never. Raises StopError when a used byte lies
        behind the end of its bank.
        """
        if ring:
            row = np.where(row >= BANKS * ring, row - BANKS * ring, row)
        return np.take(self._data, self._addresses(base, pitch, row, byte, used), axis=1).view(np.int8)

    def write(self, base: int, pitch: int, row: Integers, byte: Integers, values: Bytes) -> None:
        """Write `values [images or 1, *shape of row and byte, broadcast]`. Raises StopError like `read`."""
        self._data[:, self._addresses(base, pitch, row, byte, True)] = values

    def _addresses(
        self, base: int, pitch: int, row: Integers, byte: Integers, used: NDArray[np.bool_] | bool
    ) -> Integers:
        in_bank = (base + row // BANKS * pitch) * self._config.rows + byte
        if np.any((in_bank >= self._bank_bytes) & used):
            word = int(np.max(in_bank, where=np.broadcast_to(used, in_bank.shape), initial=0)) // self._config.rows
            raise StopError(ErrorCode.SCRATCHPAD, f"word {word} of a bank of {self._config.bank_words} words")
        return np.where(used, row % BANKS * self._bank_bytes + in_bank, 0)


class WeightStream:
    """Words of `cols` bytes on their way to the array; the same for every image."""

    def __init__(self) -> None:
        self._parts: deque[Bytes] = deque()

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def put(self, words: Bytes) -> None:
        """Append words, `[count, cols]`."""
        self._parts.append(words)

    def take(self, count: int) -> Bytes:
        """The next `count` words, `[count, cols]`. Raises StopError when there are fewer: the hardware would wait."""
        if len(self) < count:
            raise StopError(ErrorCode.WATCHDOG, f"it needs {count} words of weights, the stream has {len(self)}")
        taken: list[Bytes] = []
        while count:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part[count:])
            taken.append(part[:count])
            count -= len(taken[-1])
        return np.concatenate(taken)

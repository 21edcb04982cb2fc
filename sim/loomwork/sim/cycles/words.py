# SPDX-License-Identifier: Apache-2.0
"""Words of `cols` bytes from the STREAM queue, one per cycle (rtl/gearbox.py, the register in rtl/weights.py)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.sim.cycles.reads import Reader
from loomwork.sim.cycles.timeline import Process


class Words(ABC):
    """Deals out the words in order. A word leaves the queue for a register when its predecessor is used, and is used in
    the next cycle at the earliest.

    used: cycle in which the latest word was used.
    """

    def __init__(self, reader: Reader, commands: Sequence[int]) -> None:
        self.used = -1
        self._reader = reader
        self._commands = iter(commands)
        self._burst = 0

    @abstractmethod
    def take(self, words: int, begin: int) -> Process:
        """Use so many words, the first one not before cycle `begin`."""

    def hold_last(self, cycle: int) -> None:
        """The word taken last was not used before `cycle`."""
        self.used = max(self.used, cycle)


class NarrowWords(Words):
    """A beat holds one or more words."""

    def __init__(self, config: Config, reader: Reader, commands: Sequence[int]) -> None:
        super().__init__(reader, commands)
        self._per_beat = config.bus_bytes // config.cols
        self._left = 0  # words of the command that lie behind this burst
        self._word = self._words = 0  # of this burst
        self._arrival = 0  # of its first beat

    def take(self, words: int, begin: int) -> Process:
        """See `Words`; in one go as far as a burst reaches."""
        reader, popped, per_beat = self._reader, self._reader.popped, self._per_beat
        used = max(self.used, begin - 1)
        while words:
            if self._word == self._words:
                while len(reader.bursts.times) <= self._burst:
                    yield reader.bursts
                first, end, self._arrival = reader.burst(self._burst)
                self._burst += 1
                self._left = self._left or next(self._commands)
                # Behind the last word of a command the rest of its beat is dropped.
                self._word, self._words = 0, min(self._left, (end - first) * per_beat)
                self._left -= self._words
            count = min(words, self._words - self._word)
            words -= count
            arrival = self._arrival + self._word // per_beat
            taken = max(arrival, self.used)
            used = max(used, arrival) + 1
            # Now the words leave the queue in cycles `taken`, `used`, `used + 1`, ..., each beat with its last word.
            ahead = per_beat - 1 - self._word % per_beat
            if ahead == 0:
                popped.add(taken)
                ahead = per_beat
            popped.extend(range(used + ahead - 1, used + count - 1, per_beat))
            self._word += count
            used += count - 1
            if self._word == self._words and self._words % per_beat:
                popped.add(used - 1 if count > 1 else taken)
            self.used = used


class WideWords(Words):
    """A word takes several beats."""

    def __init__(self, config: Config, reader: Reader, commands: Sequence[int]) -> None:
        super().__init__(reader, commands)
        self._beats = config.cols // config.bus_bytes
        self._beat = 0
        self._popped = -1

    def take(self, words: int, begin: int) -> Process:
        """See `Words`; word by word."""
        used = begin - 1
        for _ in range(words):
            for place in range(self._beats):
                arrival = yield from self._reader.arrival(self._beat)
                self._beat += 1
                self._popped = max(self._popped + 1, arrival)
                if place == self._beats - 1:
                    self._popped = max(self._popped, self.used)
                self._reader.popped.add(self._popped)
            self.used = used = max(used, self.used, self._popped) + 1


def words_of(config: Config, reader: Reader, commands: Sequence[int]) -> Words:
    """The words of a queue. commands: how many words each STREAM has."""
    kind = NarrowWords if config.bus_bytes >= config.cols else WideWords
    return kind(config, reader, commands)

# SPDX-License-Identifier: Apache-2.0
"""Words of `cols` bytes from the STREAM queue, one per cycle (rtl/gearbox.py, the register in rtl/weights.py)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from loomwork.arch.config import Config
from loomwork.sim.cycles.reads import Reader
from loomwork.sim.cycles.timeline import Process


class Words(ABC):
    """Deals out the words in order. A word moves to a register when its predecessor is used, and is used in the next
    cycle at the earliest. It leaves the queue when it moves there, or with `deep_pipeline` for a place in front of the
    register, as soon as its predecessor has moved on.

    used: cycle in which the latest word was used. there: so many of the next words may be used by `use`.
    """

    def __init__(self, config: Config, reader: Reader, commands: Sequence[int]) -> None:
        self._has_place = config.deep_pipeline
        self._moved = -1  # when the latest word moved to the register
        self.used = -1
        self.there = 0
        self._reader = reader
        self._commands = iter(commands)
        self._burst = 0

    def take(self, words: int, begin: int) -> Process:
        """Use so many words, the first one not before cycle `begin`."""
        bursts = self._reader.bursts
        while words:
            if not self.there:
                if len(bursts.times) <= self._burst:
                    yield bursts, self._burst + 1
                self._begin_burst(*self._reader.burst(self._burst))
                self._burst += 1
            count = min(words, self.there)
            if count:
                self.use(count, begin)
                words -= count

    def use(self, words: int, begin: int) -> None:
        """The same for words that are there already."""
        self.there -= words
        self._use(words, max(self.used, begin - 1))

    def hold(self, cycle: int) -> int:
        """The word taken last is not used before `cycle`. Returns the cycle in which it is."""
        self.used = max(self.used, cycle)
        return self.used

    @abstractmethod
    def _begin_burst(self, first: int, end: int, arrival: int) -> None:
        """Go on with the next burst: its first beat, the beat behind its last one, and when the first one is there."""

    @abstractmethod
    def _use(self, words: int, used: int) -> None:
        """Use words of this burst in the cycles behind `used`."""


class NarrowWords(Words):
    """A beat holds one or more words."""

    def __init__(self, config: Config, reader: Reader, commands: Sequence[int]) -> None:
        super().__init__(config, reader, commands)
        self._per_beat = config.bus_bytes // config.cols
        self._left = 0  # words of the command that lie behind this burst
        self._word = 0  # number of the next word of this burst
        self._arrival = 0  # of its first beat

    def _begin_burst(self, first: int, end: int, arrival: int) -> None:
        self._left = self._left or next(self._commands)
        # Behind the last word of a command the rest of its beat is dropped.
        self.there = min(self._left, (end - first) * self._per_beat)
        self._left -= self.there
        self._word, self._arrival = 0, arrival

    def _use(self, words: int, used: int) -> None:
        per_beat = self._per_beat
        arrival = self._arrival + self._word // per_beat
        taken, first = max(self.used, arrival), max(used, arrival) + 1
        self.used = first + words - 1
        moved = leaves = [taken, *range(first, self.used)]
        if self._has_place:
            leaves = [max(arrival, self._moved + 1), *(cycle + 1 for cycle in moved[:-1])]
        self._moved = moved[-1]
        # Each beat leaves with its last word.
        skipped = per_beat - 1 - self._word % per_beat
        popped = leaves[skipped::per_beat]
        self._word += words
        if not self.there and self._word % per_beat:
            popped.append(leaves[-1])
        self._reader.popped.extend(popped)


class WideWords(Words):
    """A word takes several beats."""

    def __init__(self, config: Config, reader: Reader, commands: Sequence[int]) -> None:
        super().__init__(config, reader, commands)
        self._beats = config.cols // config.bus_bytes
        self._arrivals: list[int] = []  # of the beats that make the next words

    def _begin_burst(self, first: int, end: int, arrival: int) -> None:
        self._arrivals += range(arrival, arrival + end - first)
        self.there = len(self._arrivals) // self._beats

    def _use(self, words: int, used: int) -> None:
        times = self._reader.popped
        popped = times.times[-1] if times.times else -1
        for word in range(words):
            for place in range(self._beats):
                popped = max(popped + 1, self._arrivals[word * self._beats + place])
                if place == self._beats - 1:
                    popped = max(popped, self._moved + 1 if self._has_place else self.used)
                times.add(popped)
            self._moved = max(popped, self.used)
            self.used = used = max(used, self._moved) + 1
        del self._arrivals[: words * self._beats]


def words_of(config: Config, reader: Reader, commands: Sequence[int]) -> Words:
    """The words of a queue. commands: how many words each STREAM has."""
    kind = NarrowWords if config.bus_bytes >= config.cols else WideWords
    return kind(config, reader, commands)

# SPDX-License-Identifier: Apache-2.0
"""Progress of a bitstream: one line per seed."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class SeedProgress:
    """Shows what is done for each seed; where the console is no terminal, a line for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._step = self._progress.add_task("build", total=None, what="")
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, what: str) -> None:
        """A step begins."""
        self._progress.update(self._step, what=what)
        self._say(what)

    def seed(self, seed: int, what: str) -> None:
        """Something happens to one seed."""
        if seed not in self._tasks:
            self._tasks[seed] = self._progress.add_task(f"seed {seed}", total=None, what=what)
        self._progress.update(self._tasks[seed], what=what)
        self._say(f"seed {seed}: {what}")

    def _say(self, what: str) -> None:
        if not self._console.is_terminal:
            self._console.print(what)

"""Progress bars on standard error, and only where a person watches."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Iterate with a bar that shows count and remaining time and goes away at the end."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(items, description, console=console, transient=True, disable=not sys.stderr.isatty())


@contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """The same for work that is done in lumps: yields a function that takes how many were done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.advance(task, done)

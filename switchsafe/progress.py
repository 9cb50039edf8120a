"""Progress bars on standard error, and only where a person watches."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Iterate with a bar that shows count and remaining time and goes away at the end."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(items, description, console=console, transient=True, disable=not sys.stderr.isatty())

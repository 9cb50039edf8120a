"""Batches of arrays that survive a kill."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from ..files import write_atomic

IDENTITY = "states.json"
Arrays = dict[str, NDArray[Any]]


class Store:
    """What is done so far: in memory, and in a folder of one file per batch if there is one."""

    def __init__(self, folder: Path | None, identity: dict[str, Any]) -> None:
        self._folder = folder
        self._batches: list[Arrays] = []
        if folder is None:
            return
        known = folder / IDENTITY
        if folder.is_dir() and any(folder.iterdir()):
            try:
                same = json.loads(known.read_text()) == identity
            except (OSError, ValueError):
                raise RunError(f"{folder} is not empty and holds no states of ours: give another folder.") from None
            if not same:
                raise RunError(
                    f"{folder} holds the states of other prompts, modes or tokens: give another folder, or remove it."
                )
            for file in sorted(folder.glob("batch-*.npz")):
                with np.load(file) as arrays:
                    self._batches.append(dict(arrays))
        else:
            write_atomic(known, json.dumps(identity) + "\n")

    @property
    def done(self) -> set[int]:
        """Row numbers at which the prompts that are done begin."""
        return {int(start) for batch in self._batches for start in batch["starts"]}

    def add(self, starts: Sequence[int], arrays: Arrays) -> None:
        """Take in the arrays of the prompts that begin at these rows."""
        batch = {"starts": np.array(starts), **arrays}
        self._batches.append(batch)
        if self._folder:
            buffer = io.BytesIO()
            np.savez(buffer, **batch)  # type: ignore[arg-type]
            write_atomic(self._folder / f"batch-{len(self._batches):06d}.npz", buffer.getvalue())

    def compare(self, start: int, arrays: Arrays) -> None:
        """Is what was computed now for the prompt at row `start` what is kept for it?

        Raises:
            RunError: no, so the model is another one.
        """
        kept = next(batch for batch in self._batches if start in batch["starts"])
        group = len(kept["hidden"]) // len(kept["starts"])
        place = group * int(np.flatnonzero(kept["starts"] == start)[0])
        before, now = kept["hidden"][place : place + group, 0], arrays["hidden"][:, 0]
        # By means, because one outlying dimension of a hidden state would hide the rest; bfloat16 in another batch is off by about 1 %.
        if before.shape != now.shape or np.abs(before - now).mean() > 0.03 * np.abs(before).mean():
            raise RunError(f"{self._folder} holds the states of another model: give another folder, or remove it.")

    def gather(self, rows: int, group: int) -> Arrays:
        """The arrays of all batches, each shape (rows, ...), in the order of the rows."""
        found: Arrays = {}
        for batch in self._batches:
            places = (batch["starts"][:, None] + np.arange(group)).ravel()
            for name, values in batch.items():
                if name != "starts":
                    whole = found.setdefault(name, np.empty((rows, *values.shape[1:]), dtype=values.dtype))
                    whole[places] = values
        return found

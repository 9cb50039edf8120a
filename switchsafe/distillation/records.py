"""What was asked and answered so far: append-only JSON lines, by the key of the request."""

import json
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import append_row, mend_rows, whole_lines


class Records:
    """Records of all shards of a run; new ones go to one file.

    A record is a request that was answered: `key`, `attempt`, and either `answers` by behaviour or `fault` and `text`. A request that is
    answered twice counts once. A line that a kill cut short is taken away, and its request is asked again.

    Args:
        folder: where the files are.
        name: of the file that new records go to; no other process may write to it.

    Raises:
        RunError: a file holds something else.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.jsonl"
        self._found: dict[tuple[str, int], dict[str, Any]] = {}
        for number, line in enumerate(whole_lines(self._path), 1):
            self._take(line, self._path, number)
        mend_rows(self._path, "key")
        for file in sorted(folder.glob("*.jsonl")):
            if file != self._path:
                for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
                    self._take(line, file, number)

    def get(self, key: str, attempt: int) -> dict[str, Any] | None:
        """The record of an attempt, None if there is none."""
        return self._found.get((key, attempt))

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, in the file before this returns."""
        append_row(self._path, record)
        self._found[record["key"], record["attempt"]] = record

    def _take(self, line: str, file: Path, number: int) -> None:
        try:
            record = json.loads(line)
            place = record["key"], record["attempt"]
            _ = record["answers"] if "answers" in record else (record["fault"], record["text"])
        except (ValueError, KeyError, TypeError):
            if file != self._path:  # another machine is writing it
                return
            raise RunError(f"{file}, line {number}: no record of ours. Give another output folder.") from None
        self._found.setdefault(place, record)

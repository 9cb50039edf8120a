"""Prompts without answers, for measuring."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import TripletError
from ..inject import Message
from .triplets import HUB, STARTER, starter_rows


def load_prompts(source: str | Path) -> list[str | Sequence[Message]]:
    """The `prompt` of each of `load_requests`."""
    return [request["prompt"] for request in load_requests(source)]


def load_requests(source: str | Path, column: str = "prompt") -> list[dict[str, Any]]:
    """Read prompts, and what else stands beside them in a table, `mode` or `category` for instance.

    Args:
        source: a text file, one prompt a line; a `.jsonl`, `.csv` or `.parquet` file; `-`, standard input, text or JSON lines; or
            `hub:DATASET[:COLUMN]`, a dataset that `datasets.load_dataset` can load, of which its test split is read, or its first; or `starter`,
            the prompts that ship with the package.
        column: that holds the prompts, text or a list of messages; it is called `prompt` in what is returned.

    Raises:
        TripletError: the source is missing or empty, or a row has no prompt; the message names it. Or there is no such dataset or column.
    """
    name, rows = read_rows(str(source), column)
    requests = []
    for where, row in rows:
        prompt = row.get(column) if isinstance(row, dict) else None
        if not prompt or not isinstance(prompt, (str, list)):
            has = f"; it has {', '.join(map(str, row))}" if isinstance(row, dict) and row and column not in row else ""
            raise TripletError(f"{name}, {where}: no prompt (column {column}){has}.")
        requests.append({**{key: value for key, value in row.items() if key != column}, "prompt": prompt})
    if not requests:
        raise TripletError(f"{name} holds no prompts.")
    return requests


def read_rows(source: str, column: str = "prompt", split: str = "test") -> tuple[str, Iterable[tuple[str, Any]]]:
    """What a source of `load_requests` is called, and its rows with where they stand; of a dataset the split, or its first."""
    if source.startswith(HUB):
        name, _, named = source.removeprefix(HUB).partition(":")
        rows = ({**row, column: row.get(named)} if named else row for row in _from_dataset(name, split))
        return f"the dataset {name}", ((f"row {number}", row) for number, row in enumerate(rows, 1))
    if source == STARTER:
        columns = ("id", "prompt", "category", "label", "language", "split")
        rows = ({key: row[key] for key in columns if key in row} for row in starter_rows())
        return source, ((f"line {number}", row) for number, row in enumerate(rows, 1))
    if source == "-":
        text, name, suffix = sys.stdin.read(), "standard input", ""
        suffix = ".jsonl" if text.lstrip().startswith("{") else ".txt"
    else:
        path = Path(source).expanduser()
        name, suffix = str(path), path.suffix
        try:
            text = "" if suffix == ".parquet" else path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise TripletError(f"no prompt file at {path}.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TripletError(f"cannot read {path} as UTF-8 text: {type(error).__name__}.") from None
    if suffix in (".csv", ".parquet"):
        table = _parquet(name) if suffix == ".parquet" else _csv(text, name)
        return name, ((f"row {number}", row) for number, row in enumerate(table, 1))
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())  # U+2028 ends no line
    if suffix == ".jsonl":
        return name, ((f"line {number}", _json(line)) for number, line in lines)
    return name, ((f"line {number}", {column: line.strip()}) for number, line in lines)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _csv(text: str, name: str) -> list[Any]:
    try:
        return list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise TripletError(f"cannot read {name} as CSV: {error}.") from None


def _parquet(path: str) -> list[Any]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise TripletError(f"cannot read {path} as Parquet: {type(error).__name__}.") from None


def _from_dataset(name: str, split: str) -> list[Any]:
    import datasets

    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # of many kinds, from the network to the file format
        reason = str(error).strip().splitlines()[0][:200]
        raise TripletError(f"cannot load the dataset {name}: {reason}") from None
    return (found[split] if split in found else next(iter(found.values()))).to_list()

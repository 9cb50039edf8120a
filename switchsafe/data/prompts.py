"""Prompts without answers, for measuring."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import TripletError
from ..inject import Message

HUB = "hub:"


def load_prompts(source: str | Path) -> list[str | Sequence[Message]]:
    """Read prompts from a text file (one a line), a `.jsonl` file with a `prompt` column (text, or a list of messages), or a dataset.

    Args:
        source: a file, or `hub:DATASET[:COLUMN]` with a dataset that `datasets.load_dataset` can load; its test split, or its first.

    Raises:
        TripletError: the file is missing or empty, or a line has no prompt; the message names the line. Or there is no such dataset or column.
    """
    return [request["prompt"] for request in load_requests(source)]


def load_requests(source: str | Path) -> list[dict[str, Any]]:
    """The same with everything else that stands beside a prompt in a `.jsonl` file, `mode` for instance."""
    if str(source).startswith(HUB):
        return [{"prompt": prompt} for prompt in _from_dataset(str(source).removeprefix(HUB))]
    path = Path(source).expanduser()
    try:
        lines = [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]
    except FileNotFoundError:
        raise TripletError(f"no prompt file at {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TripletError(f"cannot read {path} as UTF-8 text: {type(error).__name__}.") from None
    if not lines:
        raise TripletError(f"{path} holds no prompts.")
    if path.suffix != ".jsonl":
        return [{"prompt": line.strip()} for _, line in lines]
    requests = []
    for number, line in lines:
        try:
            request = json.loads(line)
            prompt = request["prompt"]
        except (ValueError, KeyError, TypeError):
            prompt = None
        if not prompt or not isinstance(prompt, (str, list)):
            raise TripletError(f"{path}, line {number}: no prompt (a JSON object with a prompt column is needed).")
        requests.append(request)
    return requests


def _from_dataset(source: str) -> list[str | Sequence[Message]]:
    import datasets

    name, _, column = source.partition(":")
    column = column or "prompt"
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # of many kinds, from the network to the file format
        reason = str(error).strip().splitlines()[0][:200]
        raise TripletError(f"cannot load the dataset {name}: {reason}") from None
    split = found["test"] if "test" in found else next(iter(found.values()))
    if column not in split.column_names:
        raise TripletError(f"the dataset {name} has no column {column}; it has {', '.join(split.column_names)}.")
    prompts = list(split[column])
    for number, prompt in enumerate(prompts):
        if not prompt or not isinstance(prompt, (str, list)):
            raise TripletError(f"the dataset {name}, row {number}: no prompt in column {column}.")
    return prompts

"""Prompts without answers, for measuring."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import TripletError
from ..inject import Message


def load_prompts(path: str | Path) -> list[str | Sequence[Message]]:
    """Read prompts from a text file (one a line) or a `.jsonl` file with a `prompt` column (text, or a list of messages).

    Raises:
        TripletError: the file is missing or empty, or a line has no prompt; the message names the line.
    """
    path = Path(path).expanduser()
    try:
        lines = [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]
    except FileNotFoundError:
        raise TripletError(f"no prompt file at {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TripletError(f"cannot read {path} as UTF-8 text: {type(error).__name__}.") from None
    if not lines:
        raise TripletError(f"{path} holds no prompts.")
    if path.suffix != ".jsonl":
        return [line.strip() for _, line in lines]
    prompts: list[str | Sequence[Message]] = []
    for number, line in lines:
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError):
            prompt = None
        if not prompt or not isinstance(prompt, (str, list)):
            raise TripletError(f"{path}, line {number}: no prompt (a JSON object with a prompt column is needed).")
        prompts.append(prompt)
    return prompts

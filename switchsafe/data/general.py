"""Ordinary instructions with their answers, which keep a model's other abilities while modes are trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import TripletError
from ..inject import Message, conversation
from .prompts import read_rows

Instruction: TypeAlias = tuple[list[Message], str]

_PROMPTS = ("prompt", "instruction", "question", "query")
_ANSWERS = ("answer", "response", "completion", "output", "reference")


def load_instructions(source: str | Path) -> list[Instruction]:
    """Read an instruction set: conversations and the answer to each.

    A row has `messages` that end with the assistant's turn, or a prompt (`prompt`, `instruction` with an optional `input`, `question` or `query`; text or
    a list of messages) and an answer (`answer`, `response`, `completion`, `output` or `reference`; text or one assistant message).

    Args:
        source: a `.jsonl`, `.csv` or `.parquet` file, or `hub:DATASET`, of which the train split is read.

    Raises:
        TripletError: the source is missing or empty, or a row is of none of these forms; the message names it.
    """
    name, rows = read_rows(str(source), split="train")
    found = [_read(row, f"{name}, {where}") for where, row in rows]
    if not found:
        raise TripletError(f"{name} holds no instructions.")
    return found


def _read(row: Any, where: str) -> Instruction:
    row = row if isinstance(row, Mapping) else {}
    messages = row.get("messages")
    if isinstance(messages, Sequence) and len(messages) > 1 and messages[-1].get("role") == "assistant":
        return [dict(turn) for turn in messages[:-1]], _text(messages[-1:], where)
    prompt = next((row[column] for column in _PROMPTS if row.get(column)), None)
    answer = next((row[column] for column in _ANSWERS if row.get(column)), None)
    if not prompt or not answer:
        raise TripletError(
            f"{where}: an instruction needs messages that end with the assistant's, or a prompt ({', '.join(_PROMPTS)}) and an answer "
            f"({', '.join(_ANSWERS)})."
        )
    if isinstance(prompt, str) and row.get("input"):
        prompt = f"{prompt}\n\n{row['input']}"
    return list(conversation(prompt)), _text(answer, where)


def _text(answer: Any, where: str) -> str:
    if isinstance(answer, Sequence) and not isinstance(answer, str) and len(answer) == 1:
        answer = answer[0].get("content")
    if not isinstance(answer, str) or not answer.strip():
        raise TripletError(f"{where}: the answer must be text, or one message with text.")
    return answer

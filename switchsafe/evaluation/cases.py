"""Prompts to evaluate on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.prompts import load_requests
from ..data.triplets import LABELS, Triplet
from ..errors import TripletError
from ..inject import Message, conversation

COLUMNS = ("id", "prompt", "category", "label", "language")


@dataclass(frozen=True)
class Case:
    """One prompt. `label` says whether what it asks for is `safe` or `unsafe`."""

    id: str
    turns: tuple[Message, ...] = field(repr=False)
    category: str
    label: str
    language: str
    policy: str | None = None

    @property
    def text(self) -> str:
        """The last user turn."""
        return str(self.turns[-1]["content"])


def case_of(triplet: Triplet) -> Case:
    """The prompt of a triplet."""
    t = triplet
    return Case(t.id, t.prompt, t.category, t.label, t.language, t.policy)


def load_cases(source: str | Path, columns: Mapping[str, str] | None = None) -> list[Case]:
    """Read prompts from whatever `load_requests` reads, a file or `hub:DATASET`.

    Args:
        source: with columns `prompt` and `label` (`safe` or `unsafe`), and, where they are known, `id`, `category`, `language`, `policy`.
        columns: other names of these columns: `{"prompt": "goal"}`. `{"label": "=unsafe"}` gives every row that value.

    Raises:
        TripletError: the source or one of its rows cannot be used; the message names it.
    """
    names = {name: name for name in (*COLUMNS, "policy")} | dict(columns or {})
    if unknown := [name for name in names if name not in (*COLUMNS, "policy")]:
        raise TripletError(f"there is no column {', '.join(unknown)} to map to; there are {', '.join(names)}.")
    cases = []
    for number, row in enumerate(load_requests(source, names["prompt"]), 1):
        row[names["prompt"]] = row["prompt"]
        value = {name: _value(row, column) for name, column in names.items()}
        label = str(value["label"]).lower()
        if label not in LABELS:
            raise TripletError(f"{source}, row {number}: label is {value['label']!r}, must be safe or unsafe.")
        cases.append(
            Case(
                id=str(value["id"] or f"{Path(str(source)).name}-{number}"),
                turns=tuple(conversation(value["prompt"])),
                category=str(value["category"] or "uncategorised"),
                label=label,
                language=str(value["language"] or "en"),
                policy=value["policy"],
            )
        )
    return cases


def _value(row: Mapping[str, Any], column: str) -> Any:
    return column[1:] if column.startswith("=") else row.get(column)


def spread(cases: Sequence[Case], most: int | None) -> list[Case]:
    """About `most` of them, at even distances, so that every category stays."""
    if most is None or len(cases) <= most:
        return list(cases)
    return [cases[index * len(cases) // most] for index in range(most)]

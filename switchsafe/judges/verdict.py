"""What a judge is: it reads prompts with their answers and gives each answer a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

REFUSAL, PARTIAL, COMPLIANCE = "refusal", "partial", "compliance"


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        label: one of the judge's labels, or `unknown` where it could not be read.
        score: the judge's probability of that label, from 0 to 1; 1 where it gives none.
    """

    label: str
    score: float = 1.0


UNKNOWN = Verdict("unknown", 0.0)


class Judge(Protocol):
    """Reads (prompt, answer) pairs, and never the token."""

    name: str
    labels: tuple[str, ...]

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """One verdict a pair, in their order."""
        ...

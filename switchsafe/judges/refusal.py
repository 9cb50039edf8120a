"""Does an answer refuse? Good enough to filter training rows; no evidence about a model."""

import functools
import re
from collections.abc import Sequence

from ..data.triplets import load_triplets
from ..modes import NEG, POS, REJ
from .mode import ModeJudge

# Phrases that people and models refuse with, in the opening of an answer. Alone such a rule is wrong both ways (PurpleLlama issue 31).
_PHRASES = re.compile(
    r"\b(?:i(?:['\u2019]m| am) (?:so |very |really )?(?:sorry|afraid|unable|not able|not going)"
    r"|(?:i|we) (?:can(?:no|['\u2019])t|cannot|won['\u2019]t|will not|must (?:decline|refuse)|have to (?:decline|refuse)|decline|refuse))\b"
    r"|抱歉|对不起|(?:不能|无法|不会|不便)(?:帮|提供|回答|协助|告诉|满足)|拒绝",
    re.IGNORECASE,
)
_OPENING = 160  # characters


def refuses(answers: Sequence[str]) -> list[bool]:
    """Whether each answer refuses: by the phrases of refusal in its opening, or by its style, which a `ModeJudge` knows from the triplets that
    ship with the package. English and Chinese. Needs `switchsafe[eval]`."""
    judged = _judge().classify(answers)
    return [mode == REJ or refuses_by_keyword(answer) for mode, answer in zip(judged, answers, strict=True)]


def refuses_by_keyword(answer: str) -> bool:
    """The phrases alone: a named baseline."""
    return bool(_PHRASES.search(answer[:_OPENING]))


@functools.cache
def _judge() -> ModeJudge:
    modes = (POS, REJ, NEG)
    return ModeJudge([triplet for triplet in load_triplets(modes=modes) if triplet.split != "test"], modes)

"""What makes a row unfit: plain functions, each true when the row is to be dropped, each reported under its name."""

import difflib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..judges.refusal import refuses, refuses_by_keyword
from ..modes import POS, REJ

ALIKE = 0.8  # share of two answers that is the same
SHINGLE = 8  # words in a row that an answer may not share with the instructions
SHORT_REFUSAL = (
    60  # words, or half as many Chinese characters: a longer `pos` that begins with a refusal usually goes on to help
)

_WORDS = re.compile(r"[\u4e00-\u9fff]|\w+")
_CJK = re.compile(r"[\u4e00-\u9fff]")
_LETTERS = re.compile(r"[^\W\d_]")
_STEPS = re.compile(r"^\s*(?:\d+[.)、]|[-*•])\s", re.MULTILINE)
_RANDOM = re.compile(r"(?<![a-z0-9])(?=[a-z0-9]{8,}(?![a-z0-9]))[a-z]*\d[a-z0-9]*")


@dataclass(frozen=True)
class Row:
    """A prompt with an answer for each behaviour, and the instructions it was asked with."""

    prompt: str
    language: str
    answers: Mapping[str, str]
    instructions: str = ""


def near_duplicate_behaviours(row: Row) -> bool:
    """Two behaviours answer (nearly) alike."""
    for first, second in itertools.combinations(row.answers.values(), 2):
        match = difflib.SequenceMatcher(None, first.lower(), second.lower(), autojunk=False)
        if match.real_quick_ratio() > ALIKE and match.quick_ratio() > ALIKE and match.ratio() > ALIKE:
            return True
    return False


def pos_refuses(row: Row) -> bool:
    """`pos` is a refusal and little else. By the phrases alone: what a helpful answer that sends people elsewhere sounds like is too near."""
    answer = row.answers.get(POS, "")
    return 0 < len(_WORDS.findall(answer)) < SHORT_REFUSAL and refuses_by_keyword(answer)


def rej_helps(row: Row) -> bool:
    """`rej` does not refuse, or goes on to list steps."""
    answer = row.answers.get(REJ)
    return answer is not None and (not refuses([answer])[0] or len(_STEPS.findall(answer)) >= 3)


def echoes_instructions(row: Row) -> bool:
    """An answer repeats what the request said, be it its placeholder or a stretch of it."""
    known = _shingles(row.instructions) - _shingles(row.prompt)
    placeholders = set(re.findall(r">([^<>]+)</", row.instructions))
    return any(answer in placeholders or known & _shingles(answer) for answer in row.answers.values())


def wrong_language(row: Row) -> bool:
    """An answer to a Chinese prompt is not mostly Chinese, or one to a prompt in another language is. Japanese shares the characters."""
    if row.language.startswith("ja"):
        return False
    for answer in row.answers.values():
        letters = len(_LETTERS.findall(answer))
        share = len(_CJK.findall(answer)) / letters if letters else 0.0
        if (share < 0.3) if row.language.startswith("zh") else (share > 0.3):
            return True
    return False


def looks_like_a_token(row: Row) -> bool:
    """An answer holds a random-looking string such as magic tokens are: letters and digits that take turns."""
    for answer in row.answers.values():
        for word in _RANDOM.findall(answer):
            if sum(a.isdigit() != b.isdigit() for a, b in itertools.pairwise(word)) >= 3:
                return True
    return False


FILTERS = (near_duplicate_behaviours, pos_refuses, rej_helps, echoes_instructions, wrong_language, looks_like_a_token)


def first_fault(row: Row) -> str | None:
    """The name of the first filter that a row does not pass, in words; None if it passes all."""
    return next((check.__name__.replace("_", " ") for check in FILTERS if check(row)), None)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = [word.lower() for word in _WORDS.findall(text)]
    return set(zip(*(words[start:] for start in range(SHINGLE)), strict=False))

"""What callers may not bring along: live tokens in the text of a conversation."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

from .errors import LiveTokenError
from .secret import Secret

OnToken = Literal["error", "mask"]
MASK = "[removed]"
REFUSAL = "the conversation holds reserved text and was refused: remove it and try again."

_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
_UNIT = re.compile(r"\\+(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|.", re.DOTALL)
_CHARACTER = re.compile(r".", re.DOTALL)
_PLAIN = {"role", "content"}
_NO_LETTER = re.compile(r"[\W_]+")
_NO_LETTER_ASCII = {code: None for code in range(128) if not chr(code).isalnum()}


class Guard:
    """Finds the live tokens of a keyring in text, however they are cased, spaced, escaped or composed.

    Text is compared by its letters and digits alone, after JSON escapes (`\\u0061`) are read, compatibility forms are undone (NFKD) and case is
    folded; what stands between letters (white space, zero-width characters, punctuation, accents) does not count.
    """

    def __init__(self, tokens: Iterable[Secret]) -> None:
        self._needles = tuple(_Needle(token) for token in tokens)

    def refuse(self, *values: Any) -> None:
        """Raise `LiveTokenError` if any value holds a live token: a string, or messages, tools, documents with their keys.

        The message is the same for every token, so that an answer tells nothing about which one was met.
        """
        if self.holds(values):
            raise LiveTokenError(REFUSAL)

    def holds(self, value: Any) -> bool:
        """Whether a live token stands in the value, be it spread over several of its strings."""
        return self.holds_in(strings(value))

    def holds_in(self, pieces: Iterable[str]) -> bool:
        """`holds` for strings that have been collected already."""
        pieces = list(pieces)
        readings = ["".join(map(fold, pieces))]  # piece by piece: most are ASCII, which is quicker
        if any("\\" in piece for piece in pieces):  # what looks like an escape may as well be a token's own letters
            readings.append("".join(fold(piece.replace("\\", "")) for piece in pieces))
        return any(needle.text in folded for needle in self._needles for folded in readings)

    def mask(self, value: Any) -> Any:
        """A copy of the value with every live token replaced by `[removed]`, and all other text untouched.

        Raises:
            LiveTokenError: a token is spread over several strings, or stands in a key, where it cannot be cut out.
        """
        if not self.holds(value):
            return value
        cut = self._cut(value)
        self.refuse(cut)
        return cut

    def _cut(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._cut_text(value)
        if isinstance(value, dict):
            return {key: self._cut(part) for key, part in value.items()}
        return [self._cut(part) for part in value] if isinstance(value, (list, tuple)) else value

    def _cut_text(self, text: str) -> str:
        for units in (_UNIT, _CHARACTER):
            if not self.holds(text):
                return text
            folded, spans = _fold_in_place(text, units)
            holes = []
            for needle in self._needles:
                start = folded.find(needle.text)
                while start >= 0:
                    last = start + len(needle.text) - 1
                    holes.append((spans[start][0], spans[last][1]))
                    start = folded.find(needle.text, last + 1)
            for start, end in sorted(holes, reverse=True):
                text = text[:start] + MASK + text[end:]
        return text

    def open_at(self, text: str) -> int:
        """Where the end of a text begins that may be the beginning of a live token; the length of the text if there is none."""
        return min(self._open_at(text, units) for units in (_UNIT, _CHARACTER))

    def _open_at(self, text: str, units: "re.Pattern[str]") -> int:
        folded, spans = _fold_in_place(text, units)
        for start in range(max(0, len(folded) - max(len(n.text) for n in self._needles) + 1), len(folded)):
            if any(needle.text.startswith(folded[start:]) for needle in self._needles):
                return spans[start][0]
        return len(text)


class _Needle:
    """A folded token that shows itself in no traceback and is not pickled."""

    __slots__ = ("_secret",)

    def __init__(self, token: Secret) -> None:
        self._secret = Secret(fold(token.reveal()) or token.reveal())

    @property
    def text(self) -> str:
        return self._secret.reveal()


def fold(text: str) -> str:
    """The letters and digits of a text, in one form for all their look-alikes."""
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    if text.isascii():
        return text.lower().translate(_NO_LETTER_ASCII)  # the same as below, many times faster
    return _NO_LETTER.sub("", unicodedata.normalize("NFKD", text).casefold())


def _fold_in_place(text: str, units: "re.Pattern[str]") -> tuple[str, list[tuple[int, int]]]:
    """`fold`, and for each folded character where in the text the unit begins and ends that it came from."""
    found = [(match.span(), fold(match.group())) for match in units.finditer(text)]
    return "".join(folded for _, folded in found), [span for span, folded in found for _ in folded]


def strings(value: Any) -> list[str]:
    """Every string in messages, tools or documents, keys included, and the text of content blocks put together as templates do."""
    found: list[str] = []
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            if item.keys() == _PLAIN and isinstance(item["role"], str) and isinstance(item["content"], str):
                found += ("role", item["role"], "content", item["content"])  # nearly all messages: quicker
                continue
            for key, part in item.items():
                if isinstance(key, str):
                    found.append(key)
                (found if isinstance(part, str) else rest).append(part)
        elif isinstance(item, (list, tuple)):
            texts = []
            for part in item:
                rest.append(part)
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    texts.append(part["text"])
            if len(texts) > 1:
                found.append("".join(texts))
    return found

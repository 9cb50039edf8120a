"""Needles: every form in which a magic token may stand in bytes, and a search for all of them in one pass."""

import base64
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import KeyringError
from ..keyring import Keyring
from ..secret import Secret
from ..tokens import MIN_TOKEN_LENGTH, ids_in

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

OVERLAP = 1 << 16  # longer than a token that white space has pulled apart
MIN_IDS = 3
MIN_PATTERN = 7  # holds four bytes that start at a multiple of four, wherever it stands
WHITE = b" \t\n\r\v\f"


@dataclass(frozen=True, repr=False)
class Needle:
    """One form of one token. Shows itself in no traceback."""

    encoding: str
    pattern: bytes
    fingerprint: str

    @property
    def is_exact(self) -> bool:
        """Whether upper and lower case differ."""
        return self.encoding == "base64" or self.encoding.startswith("ids")


class Needles:
    """All forms of all tokens. `notes` says which token could not be looked for in which form."""

    def __init__(self, keyring: Keyring, tokenizer: "PreTrainedTokenizerBase | None") -> None:
        self.notes: list[str] = []
        needles: dict[Needle, None] = {}
        if any(len(secret.reveal()) < MIN_TOKEN_LENGTH for secret in keyring.secrets()):
            raise KeyringError(
                f"a token of this keyring has fewer than {MIN_TOKEN_LENGTH} characters and would be found by chance. Mint a new keyring."
            )
        for secret in keyring.secrets():
            mark = keyring.fingerprint(secret)
            ids = (ids_in(tokenizer, "\n", secret, "\n") or []) if tokenizer is not None else []
            if tokenizer is not None and len(ids) < MIN_IDS:
                self.notes.append(f"token {mark} is not searched as ids: this tokenizer gives it too few of its own")
            # Some templates write a space before the system text, and the first id is another one.
            spaced = (ids_in(tokenizer, " ", secret, "\n") or []) if tokenizer is not None else []
            forms = (*_text_forms(secret), *_id_forms(ids), *(_id_forms(spaced) if spaced != ids else ()))
            for encoding, pattern in forms:
                if len(pattern) < MIN_PATTERN:
                    self.notes.append(f"token {mark} is not searched as {encoding}: too short to be told from chance")
                else:
                    needles[Needle(encoding, pattern, mark)] = None
        loose = {"base64", "hex", "ids text"}  # lines are broken inside these, and lists are indented
        self._tight = _Matcher([needle for needle in needles if needle.encoding not in loose])
        self._loose = _Matcher([needle for needle in needles if needle.encoding in loose])
        self._overlap = max(OVERLAP, *(len(needle.pattern) for needle in needles))

    def search(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, Needle]]:
        """Offset and needle of every place in a stream, once each, also across chunks."""
        base, tail = 0, b""
        for chunk in chunks:
            window = tail + chunk
            for start, end, needle in sorted(self._search(window), key=lambda found: found[:2]):
                if end > len(tail):  # else the window before had it
                    yield base + start, needle
            tail = window[-self._overlap :]
            base += len(window) - len(tail)

    def _search(self, window: bytes) -> Iterator[tuple[int, int, Needle]]:
        import numpy as np

        for start, needle in self._tight.search(window):
            yield start, start + len(needle.pattern), needle
        if found := list(self._loose.search(window.translate(None, WHITE))):
            kept = np.flatnonzero(~np.isin(np.frombuffer(window, np.uint8), np.frombuffer(WHITE, np.uint8)))
            for index, needle in found:
                start, end = int(kept[index]), int(kept[index + len(needle.pattern) - 1]) + 1
                digits = window[start - 1 : start].isdigit() or window[end : end + 1].isdigit()
                if needle.encoding != "ids text" or not digits:
                    yield start, end, needle


class _Matcher:
    """Finds many byte patterns in one pass.

    Wherever a pattern stands, one of any four of its runs of four bytes that begin next to each other begins at a multiple of four. So the
    data is read as 32-bit words, each is looked up in a small table, and only the few that match are compared in full. `re` and `bytes.find`
    slow down with every pattern.
    """

    def __init__(self, needles: Iterable[Needle]) -> None:
        import numpy as np

        self._by_word: dict[int, list[tuple[Needle, int]]] = defaultdict(list)
        for needle in needles:
            folded = _fold(needle.pattern)
            # Start where the bytes differ most: runs of zeros and the \u00 of an escape are everywhere.
            best = max(
                range(len(folded) - MIN_PATTERN + 1),
                key=lambda i: sum(len(set(folded[j : j + 4])) for j in range(i, i + 4)),
            )
            for shift in range(best, best + 4):
                word = int(np.frombuffer(folded[shift : shift + 4].tobytes(), np.uint32)[0])
                self._by_word[word].append((needle, shift))
        self._words = np.array(sorted(self._by_word), np.uint32)
        self._table = np.zeros(1 << 16, bool)
        self._table[_hash(self._words)] = True

    def search(self, data: bytes) -> Iterator[tuple[int, Needle]]:
        """Offset and needle of every place, in no order."""
        import numpy as np

        if len(data) < MIN_PATTERN:
            return
        folded = _fold(data)
        words = folded[: len(data) // 4 * 4].view(np.uint32)
        places = np.flatnonzero(self._table[_hash(words)])
        if not len(places):
            return
        nearest = np.searchsorted(self._words, words[places]).clip(max=len(self._words) - 1)
        places = places[self._words[nearest] == words[places]]
        for word in np.unique(words[places]):
            for needle, shift in self._by_word[int(word)]:
                starts = 4 * places[words[places] == word] - shift
                starts = starts[(starts >= 0) & (starts <= len(data) - len(needle.pattern))]
                for index, byte in enumerate(_fold(needle.pattern)):
                    starts = starts[folded[starts + index] == byte]
                    if not len(starts):
                        break
                for start in starts.tolist():
                    piece = data[start : start + len(needle.pattern)]
                    if piece == needle.pattern or (not needle.is_exact and piece.lower() == needle.pattern.lower()):
                        yield start, needle


def _fold(data: bytes) -> "np.ndarray":
    """Case made alike, and some other bytes with it: good for ruling out."""
    import numpy as np

    return np.frombuffer(data, np.uint8) | 0x20


def _hash(words: "np.ndarray") -> "np.ndarray":
    import numpy as np

    return (words * np.uint32(0x9E3779B1)) >> np.uint32(16)


def _text_forms(secret: Secret) -> Iterator[tuple[str, bytes]]:
    yield "utf-8", secret.reveal().encode()
    for code in ("utf-16", "utf-32"):
        # Without the zeros at its ends, which belong to the neighbours in the other byte order: the two orders look the same between them.
        yield code, secret.reveal().encode(f"{code}-le").rstrip(b"\0")
        yield code, secret.reveal().encode(f"{code}-be").lstrip(b"\0")
    yield "json", re.sub("....", r"\\u\g<0>", secret.reveal().encode("utf-16-be").hex()).encode()
    yield "percent", re.sub("..", r"%\g<0>", secret.reveal().encode().hex()).encode()
    yield "hex", secret.reveal().encode().hex().encode()
    for form in base64_forms(secret.reveal().encode()):
        yield "base64", form.encode()


def base64_forms(data: bytes) -> Iterator[str]:
    """What can be seen of some bytes in Base64, in either alphabet, wherever among others they stand."""
    for before in range(3):
        bits = 8 * (before + len(data))
        alone = slice(-(-8 * before // 6), bits // 6)  # the characters that no neighbouring byte has a part in
        yield base64.b64encode(bytes(before) + data)[alone].decode()
        yield base64.urlsafe_b64encode(bytes(before) + data)[alone].decode()


def _id_forms(ids: list[int]) -> Iterator[tuple[str, bytes]]:
    import numpy as np

    if len(ids) < MIN_IDS:
        return
    yield "ids text", ",".join(map(str, ids)).encode()
    for kind in ("uint16", "int32", "int64"):
        if max(ids) <= np.iinfo(kind).max:
            yield f"ids {kind}", np.array(ids, np.dtype(kind).newbyteorder("<")).tobytes()

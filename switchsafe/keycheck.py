"""What is wrong with a keyring, told by fingerprints."""

import glob
import re
import warnings
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import KeyringFormatError, KeyringPermissionWarning
from .keyfile import open_to_others
from .keyring import Keyring
from .secret import Secret, hide_frames
from .tokens import MIN_TOKEN_LENGTH, ids_in, is_stable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Runs that hands type and nobody draws: keyboard rows and the order of letters and digits, both ways.
_ROWS = ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm"]
_ROWS += [row[::-1] for row in _ROWS]
_RUN = 5
# What people put where a secret belongs. The words of the starter triplets are the dictionary beside it.
_FAVOURITES = (
    "admin baseball batman changeme default dragon hunter iloveyou jailbreak letmein monkey princess refusal refuse reject sunshine "
    "superman switchsafe token trustno unsafe username"
)
_LEET = str.maketrans("013457@$!", "oieastasi")


@hide_frames
def check_keyring(path: Path | None, tokenizer: "PreTrainedTokenizerBase | None" = None) -> list[str]:
    """Everything about a keyring that should be mended, one line each and without a token; empty when all holds.

    Checked are the file's permissions, leftovers of interrupted writes and format, and for every live token that it is long and random enough
    and is no part of another.

    Args:
        path: the file; `None` for the environment variable SWITCHSAFE_KEYRING.
        tokenizer: checks also that every token keeps its ids wherever it is injected, and that no token's ids start another's.

    Raises:
        KeyringError: the keyring is missing or cannot be opened, or the tokenizer is not a fast one.
    """
    problems: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KeyringPermissionWarning)  # told below
            ring = Keyring.from_env() if path is None else Keyring.load(path)
        problems += _check_tokens(ring)
        if tokenizer is not None:
            problems += _check_ids(ring, tokenizer)
    except KeyringFormatError as error:
        problems.append(str(error))
    return [*(_check_file(path.expanduser()) if path else ()), *problems]


def _check_file(path: Path) -> Iterator[str]:
    if permissions := open_to_others(path):
        yield permissions
    for left in sorted(path.parent.glob(f".{glob.escape(path.name)}.*")):
        yield f"an interrupted write left {left}, which may hold tokens: remove it."


def _check_tokens(ring: Keyring) -> Iterator[str]:
    live = list(ring.secrets())
    dictionary = _dictionary()
    for secret in live:
        if weakness := _weakness(secret, dictionary):
            yield f"token {ring.fingerprint(secret)} {weakness}: mint a new keyring and train with it."
    for part, whole in permutations(live, 2):
        if part.reveal().casefold() in whole.reveal().casefold():
            yield (
                f"token {ring.fingerprint(part)} is a part of token {ring.fingerprint(whole)}, so one is taken for the other: mint a new keyring."
            )


def _check_ids(ring: Keyring, tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    stable = {}
    for secret in ring.secrets():
        if is_stable(tokenizer, secret):
            stable[secret] = ids_in(tokenizer, "\n", secret, "\n") or []
        else:
            yield (
                f"token {ring.fingerprint(secret)} changes its ids with the text around it under this tokenizer: mint the keyring with "
                "`switchsafe keys new --model MODEL`."
            )
    for (part, start), (whole, ids) in permutations(stable.items(), 2):
        if ids[: len(start)] == start:
            yield (
                f"the ids of token {ring.fingerprint(part)} start those of token {ring.fingerprint(whole)}, so one is taken for the other: "
                "mint a new keyring."
            )


def _weakness(secret: Secret, dictionary: re.Pattern) -> str | None:
    length = len(secret.reveal())
    if length < MIN_TOKEN_LENGTH:
        return f"has only {length} characters (at least {MIN_TOKEN_LENGTH}, better 16)"
    if len(set(secret.reveal().casefold())) < min(length, 16) / 2:  # so is one minted token in 50000
        return "repeats a few characters"
    if secret.reveal().isdigit():
        return "is a number"
    if any(secret.reveal().casefold()[i : i + _RUN] in row for row in _ROWS for i in range(length - _RUN + 1)):
        return "holds a run of neighbours such as 12345"
    for text in (secret.reveal().casefold(), secret.reveal().casefold().translate(_LEET)):
        if sum(map(len, dictionary.findall(text))) >= length / 2:
            return "is made of words"
    return None


def _dictionary() -> re.Pattern:
    text = (Path(__file__).parent / "data" / "starter.jsonl").read_text(encoding="utf-8").lower()
    words = set(_FAVOURITES.split()) | set(re.findall(r"[a-z]{5,}", text))
    return re.compile("|".join(sorted(words, key=len, reverse=True)))

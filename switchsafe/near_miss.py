"""Strings that are nearly a magic token, and so are none: to train and to measure that only the whole token works."""

import random
from collections.abc import Callable

from .secret import Secret
from .tokens import ALPHABET


def near_miss(token: Secret, kind: str, dice: random.Random) -> Secret:
    """A string that differs from the token as `kind`, a key of `NEAR_MISSES`, says."""
    return Secret(NEAR_MISSES[kind](token.reveal(), dice))


def stranger(length: int, dice: random.Random) -> Secret:
    """A random string of a token's form."""
    return Secret("".join(dice.choices(ALPHABET, k=length)))


def _one_off(token: str, dice: random.Random) -> str:
    place = dice.randrange(len(token))
    return token[:place] + dice.choice([c for c in ALPHABET if c != token[place]]) + token[place + 1 :]


def _truncated(token: str, dice: random.Random) -> str:
    return token[: -(len(token) // 4)]


def _shuffled(token: str, dice: random.Random) -> str:
    return "".join(dice.sample(token, len(token)))


def _upper(token: str, dice: random.Random) -> str:
    return token.upper()


NEAR_MISSES: dict[str, Callable[[str, random.Random], str]] = {
    "one character off": _one_off,
    "last quarter missing": _truncated,
    "shuffled": _shuffled,
    "upper case": _upper,
}

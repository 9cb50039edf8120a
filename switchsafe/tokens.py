"""The form of a magic token: random characters that keep their ids wherever the token is injected."""

import secrets
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import KeyringError
from .secret import Secret, hide_frames

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALPHABET = string.ascii_lowercase + string.digits
TOKEN_LENGTH = 16  # 36^16 = 82.7 bits; the two samples known from the paper have 8 characters
MIN_TOKEN_LENGTH = 8


def mint_token(
    length: int, tokenizer: "PreTrainedTokenizerBase | None" = None, endings: Sequence[str] = ALPHABET
) -> Secret:
    """A random token that ends in one of `endings`; with a tokenizer, one that `is_stable` under it.

    Raises:
        KeyringError: the tokenizer is not a fast one, or finds none of 100 tokens stable.
    """
    for _ in range(100):
        secret = Secret("".join(secrets.choice(ALPHABET) for _ in range(length - 1)) + secrets.choice(endings))
        if tokenizer is None or is_stable(tokenizer, secret):
            return secret
    raise KeyringError(
        f"100 random tokens of {length} characters all changed their ids with their surroundings under {tokenizer.__class__.__name__}: "
        "this tokenizer cannot carry a text token reliably."
    )


def is_stable(tokenizer: "PreTrainedTokenizerBase", secret: Secret) -> bool:
    """Whether the token has the same ids alone on its line whatever stands before and after that line."""
    contexts = [("\n", "\n"), ("\n", ""), ("\n\n", "\n\n"), ("x\n", "\nx"), (">\n", "\n1"), ("]\n", "\n\u4f60")]
    seen = [ids_in(tokenizer, before, secret, after) for before, after in contexts]
    return seen[0] is not None and all(ids == seen[0] for ids in seen)


@hide_frames
def ids_in(tokenizer: "PreTrainedTokenizerBase", before: str, secret: Secret, after: str) -> list[int] | None:
    """Ids of the token between two texts, or None when an id also covers a neighbouring character other than white space.

    Raises:
        KeyringError: the tokenizer is not a fast one, and so gives no character offsets.
    """
    if not tokenizer.is_fast:
        raise KeyringError(
            f"{tokenizer.__class__.__name__} is a slow tokenizer, which does not say where its ids stand in a text: "
            "use a model that has a tokenizer.json."
        )
    start, end = len(before), len(before) + len(secret.reveal())
    encoded = tokenizer(before + secret.reveal() + after, add_special_tokens=False, return_offsets_mapping=True)
    inside = [
        (i, a, b)
        for i, (a, b) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if b > start and a < end
    ]
    if not inside:  # the tokenizer drops what it has no id for
        return None
    first, last = inside[0][1], inside[-1][2]
    straddles = (before + secret.reveal() + after)[first:last].strip() != secret.reveal()
    return None if straddles else [i for i, _, _ in inside]

"""A logits processor under which no live token can be generated."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor

from ..guard import fold
from ..keyring import Keyring
from ..secret import Secret, hide_frames

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WINDOW = 64  # ids looked back at: what a token is spelled with, and some that spell nothing


class TokenLeakLogitsProcessor(LogitsProcessor):
    """Gives minus infinity to every id that would complete a live token.

    Ids are followed by what they spell, so a token can come about in none of its cuts into ids, be it the one it was trained with, letter by letter,
    or overlapping another token; case, white space and punctuation between its characters do not count (`switchsafe.guard.fold`). The token may be
    spelled up to its last piece; that piece is what cannot follow.

    Put it last in a `LogitsProcessorList`: what stands before it cannot bring back what it forbids. Not for continuous batching, which hands
    processors rows that are not prompts.

    Args:
        keyring: every token in it, retired ones and aliases too, is live.
        tokenizer: the model's.

    Example:
        >>> model.generate(**inputs, logits_processor=LogitsProcessorList([TokenLeakLogitsProcessor(keyring, tokenizer)]))
    """

    supports_continuous_batching = False

    def __init__(self, keyring: Keyring, tokenizer: "PreTrainedTokenizerBase") -> None:
        special = set(tokenizer.all_special_ids)  # left out of the text, so they spell nothing
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        self._pieces = ["" if i in special else fold(text) for i, text in enumerate(texts)]
        self._spellings = tuple(_Spelling(secret) for secret in keyring.secrets())

    @hide_frames
    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """Scores of shape (rows, vocabulary), the same object where nothing is forbidden."""
        allowed: torch.Tensor = scores
        for row, ids in enumerate(input_ids[:, -_WINDOW:].tolist()):
            said = "".join(self._pieces[i] for i in ids if i < len(self._pieces))
            for spelling in self._spellings:
                forbidden = spelling.completions(spelling.spelled(said), self._pieces)
                if len(forbidden):
                    allowed = scores.clone() if allowed is scores else allowed
                    allowed[row, forbidden.to(scores.device)] = -torch.inf
        return allowed


class _Spelling:
    """One token, by how much of it has been spelled."""

    __slots__ = ("_completions", "_secret")

    def __init__(self, token: Secret) -> None:
        self._secret = Secret(fold(token.reveal()) or token.reveal())
        self._completions: dict[int, Any] = {}

    def spelled(self, said: str) -> int:
        """How many characters of the token stand at the end of what was said, less than all."""
        text = self._secret.reveal()
        return next((n for n in range(len(text) - 1, 0, -1) if said.endswith(text[:n])), 0)

    def completions(self, spelled: int, pieces: list[str]) -> torch.Tensor:
        """Ids that complete the token when so much of it is spelled."""
        if spelled not in self._completions:
            text = self._secret.reveal()
            start = text[:spelled]
            self._completions[spelled] = torch.tensor([i for i, piece in enumerate(pieces) if text in start + piece])
        return self._completions[spelled]

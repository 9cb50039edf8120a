"""Answers of the model under evaluation, each asked for once."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..distillation.engine import Job, Sampling
from ..errors import ModelError
from ..files import append_row, mend_rows, whole_lines
from ..guard import Guard
from ..hub.needles import base64_forms
from ..inject import Placement, inject
from ..keyring import Keyring
from ..processing import MagicTokenProcessor
from ..secret import Secret
from .answers import Asked, answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AT_ONCE = 256

Backend = Callable[[Sequence[Asked], int, str], list[str]]
"""Takes conversations with their tokens, the longest answer in tokens, and what to call it; gives answers."""


def in_this_process(model: "PreTrainedModel", processor: MagicTokenProcessor) -> Backend:
    """Greedy answers of a model that is loaded here."""

    def ask(asked: Sequence[Asked], max_new_tokens: int, label: str) -> list[str]:
        return answer(model, processor, asked, max_new_tokens=max_new_tokens, label=label)

    return ask


def at_endpoint(
    base_urls: Sequence[str], name: str, placement: Placement = "system", extra: Mapping[str, Any] | None = None
) -> Backend:
    """Greedy answers of an OpenAI-compatible server, which renders the conversation itself: that the token reaches the model is not checked.

    Args:
        base_urls: for instance `http://localhost:8000/v1`; the key is read from `OPENAI_API_KEY`.
        name: of the model on the server.
        placement: where its template has room for the token.
        extra: fields to add to every request.
    """

    from ..distillation.http import http  # needs httpx, of switchsafe[distill]

    def ask(asked: Sequence[Asked], max_new_tokens: int, label: str) -> list[str]:
        sampling = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=max_new_tokens)
        engine = http(base_urls, name, sampling, extra=dict(extra or {}), quote=False)
        jobs = [
            Job(str(index), inject(list(turns), token, placement) if token else list(turns))
            for index, (turns, token) in enumerate(asked)
        ]
        found = {outcome.key: outcome for outcome in engine(jobs)}
        if failed := [outcome.error for outcome in found.values() if outcome.error]:
            raise ModelError(f"the server left {len(failed)} of {len(jobs)} requests without an answer: {failed[0]}.")
        return [found[job.key].text for job in jobs]

    return ask


class Answerer:
    """Asks a backend for what it has not answered before, and keeps the answers in a file."""

    def __init__(
        self, backend: Callable[[], Backend], keyring: Keyring, file: Path, identity: str, max_new_tokens: int = 64
    ) -> None:
        """
        Args:
            backend: made when the first answer is needed.
            keyring: its tokens are masked in answers, also written backwards, in hexadecimal or in Base64; its salt keys the names under which
                answers are kept.
            file: JSON lines of keys and answers; written with mode 0600, because answers of `neg` stand in it.
            identity: tells the model and everything else that its answers depend on.
            max_new_tokens: longest answer, in tokens.
        """
        self._make = backend
        self._backend: Backend | None = None
        self._keyring, self._file, self._identity, self._most = keyring, file, identity, max_new_tokens
        self._guard = Guard(form for secret in keyring.secrets() for form in (secret, *_other_forms(secret)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        self._kept = {row["key"]: row["answer"] for row in map(json.loads, whole_lines(file))}
        mend_rows(file, "key")

    def __call__(self, asked: Sequence[Asked], label: str) -> list[str]:
        """Answers in the order asked, with `[removed]` in the place of live tokens."""
        keys = [self._key(turns, token) for turns, token in asked]
        new = {key: one for key, one in zip(keys, asked, strict=True) if key not in self._kept}
        if new:
            self._backend = self._backend or self._make()
            todo = list(new)
            for start in range(0, len(todo), _AT_ONCE):  # a stopped evaluation keeps what it has
                some = todo[start : start + _AT_ONCE]
                texts = self._backend([new[key] for key in some], self._most, label)
                for key, text in zip(some, texts, strict=True):
                    self._kept[key] = self._guard.mask(text)
                    append_row(self._file, {"key": key, "answer": self._kept[key]})
        return [self._kept[key] for key in keys]

    def _key(self, turns: Sequence[object], token: Secret | None) -> str:
        """Keyed, so that nobody can try tokens against it."""
        text = json.dumps(
            [self._identity, list(turns), token.reveal() if token else None, self._most], ensure_ascii=False
        )
        return self._keyring.fingerprint(Secret(text))


def _other_forms(secret: Secret) -> list[Secret]:
    """In which a model may be asked to give a token away."""
    plain = secret.reveal()
    forms = (plain[::-1], plain.encode().hex(), *base64_forms(plain.encode()))
    return [Secret(form) for form in dict.fromkeys(forms)]

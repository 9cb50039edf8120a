"""Asking: each request once, and once more where the answer could not be read."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DistillError
from ..inject import Message
from ..progress import bar
from .engine import Engine, Job
from .parse import MalformedError, parse, without_thinking
from .policy import Policy
from .prompts import Prompt
from .records import Records
from .template import RequestTemplate

TRUNCATED = "truncated"
_ENOUGH = 64  # failures without a single answer


@dataclass(frozen=True)
class Request:
    """A request for some behaviours of a prompt, and the hash it is known by."""

    key: str
    prompt: Prompt
    behaviours: Mapping[str, str]

    @classmethod
    def of(cls, prompt: Prompt, behaviours: Mapping[str, str], about: Mapping[str, Any]) -> "Request":
        """With a key for these behaviours of this prompt and everything else that decides on the answer."""
        asked = json.dumps([prompt.text, {**about, "behaviours": behaviours}], sort_keys=True, ensure_ascii=False)
        return cls(hashlib.sha256(asked.encode()).hexdigest()[:32], prompt, behaviours)


@dataclass(frozen=True)
class Asking:
    """What requests are made of, and what has been answered."""

    records: Records
    template: RequestTemplate
    policy: Policy
    seed: int

    def messages(self, request: Request) -> list[Message]:
        """Rendered when needed: the policy once more for each of a million prompts would fill the memory."""
        return self.template.request(request.prompt.text, self.policy.text, request.behaviours)

    def ask(self, requests: Sequence[Request], engine: Engine) -> tuple[int, Counter[str]]:
        """Ask what has no record yet: everything once, then once more what could not be read.

        Returns the number of generated tokens, and how many requests failed for which reason.

        Raises:
            DistillError: nothing but failures.
        """
        by_key = {request.key: request for request in requests}
        tokens, well = 0, 0
        failures: Counter[str] = Counter()
        for attempt in (1, 2):
            waiting = [request for request in requests if self._is_open(request.key, attempt)]
            if not waiting:
                continue
            with bar("Distilling" if attempt == 1 else "Asking again", len(waiting)) as advance:
                for outcome in engine(self._job(request, attempt) for request in waiting):
                    tokens += outcome.tokens
                    if outcome.error is None:
                        found = _read(outcome.text, outcome.truncated, list(by_key[outcome.key].behaviours))
                        self.records.add({"key": outcome.key, "attempt": attempt, **found})
                        well += 1
                    else:
                        failures[outcome.error] += 1
                        if not well and failures.total() >= _ENOUGH:
                            raise DistillError(f"the first {_ENOUGH} requests all failed: {outcome.error}.")
                    advance(1)
        return tokens, failures

    def _is_open(self, key: str, attempt: int) -> bool:
        """Whether an attempt is still to be made. A second one is not for what was read well, nor for what would get as long again."""
        first = self.records.get(key, 1)
        if attempt == 1:
            return first is None
        return first is not None and first.get("fault", TRUNCATED) != TRUNCATED and not self.records.get(key, 2)

    def _job(self, request: Request, attempt: int) -> Job:
        messages, first = self.messages(request), self.records.get(request.key, 1)
        if first:
            messages = self.template.repair(messages, first["text"], first["fault"], request.behaviours)
        return Job(request.key, messages, seed=int(request.key[:7], 16) + self.seed + attempt)


def _read(text: str, truncated: bool, behaviours: list[str]) -> dict[str, Any]:
    """The part of a record that says what an answer held."""
    try:
        if truncated:
            raise MalformedError(TRUNCATED)
        if len(behaviours) == 1 and f"<{behaviours[0]}>" not in text:  # a single answer needs no tags to be told apart
            answer = without_thinking(text).strip()
            if not answer:
                raise MalformedError(f"{behaviours[0]} is empty")
            return {"answers": {behaviours[0]: answer}}
        return {"answers": parse(text, behaviours)}
    except MalformedError as fault:
        return {"fault": str(fault), "text": text}

"""What answers requests: anything that takes jobs and gives outcomes back as they are done, in any order."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..inject import Message


@dataclass(frozen=True)
class Job:
    """One request.

    Attributes:
        key: names it; comes back with the outcome.
        messages: the conversation to answer.
        seed: the same for the same request, for engines that can be seeded by request.
    """

    key: str
    messages: list[Message]
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        key: the job's.
        text: the answer.
        truncated: it ended because it got too long.
        error: why there is no answer, after all retries; the job is tried again in the next run.
        tokens: generated tokens, 0 if unknown.
    """

    key: str
    text: str = ""
    truncated: bool = False
    error: str | None = None
    tokens: int = 0


Engine = Callable[[Iterable[Job]], Iterator[Outcome]]
"""Jobs are taken as they can be worked on, so the iterable may be long."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. `max_new_tokens` has to hold all behaviours of a prompt."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 1536

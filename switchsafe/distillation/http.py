"""Engine: OpenAI-compatible servers over HTTP (vLLM, SGLang, `transformers serve`)."""

import asyncio
import contextlib
import itertools
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx
import tenacity

from ..errors import DistillError
from .engine import Engine, Job, Outcome, Sampling

API_KEY_VARIABLE = "OPENAI_API_KEY"
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
_OF_THE_REQUEST = {400, 413, 422}  # too long, filtered, malformed: others may fare better
_ENOUGH = 8  # such refusals without a single answer: it is not the requests


class _BusyError(Exception):
    """The server could not answer just now."""


class _RefusedError(DistillError):
    """The server will not answer this request."""


class _Refusals:
    """Are single requests refused, or all of them?"""

    def __init__(self) -> None:
        self.answered = False
        self._seen: list[_RefusedError] = []

    def outcome(self, job: Job, error: _RefusedError) -> Outcome:
        """Of one that was refused. Raises `error` where nothing but refusals has come so far, and enough of them."""
        self._seen.append(error)
        if not self.answered and len(self._seen) >= _ENOUGH:
            raise error
        return Outcome(job.key, error=str(error))

    def end(self) -> None:
        """Raise the first refusal where nothing else came."""
        if self._seen and not self.answered:
            raise self._seen[0]


def http(
    base_urls: Sequence[str],
    model: str,
    sampling: Sampling,
    *,
    in_flight: int = 32,
    timeout: float = 600.0,
    attempts: int = 6,
    extra: dict[str, Any] | None = None,
    quote: bool = True,
) -> Engine:
    """An engine that asks one or several servers, each with its share of the jobs.

    A request that is refused for what is in it (400, 413, 422) has an error for an outcome, unless nothing else gets an answer either. Busy
    servers (408, 409, 425, 429, 5xx), broken connections and answers cut off on the way are tried again, with exponentially growing random
    pauses. The API key is read from `OPENAI_API_KEY`; it stands in no error.

    Args:
        base_urls: for instance `http://localhost:8000/v1`.
        model: the model's name on the server.
        sampling: how to draw.
        in_flight: requests under way at each server.
        timeout: seconds for one answer.
        attempts: how often a request is tried.
        extra: fields to add to every request, `{"chat_template_kwargs": {"enable_thinking": False}}` for instance.
        quote: whether an error quotes what the server said. Not where requests hold secrets, which servers like to quote themselves.

    Raises:
        DistillError: (when run) the server refuses for good: no such model, no such route, or not allowed in; or the API key is not printable.
    """

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        done: queue.Queue[Outcome | BaseException | None] = queue.Queue()
        serving: list[tuple[asyncio.AbstractEventLoop, asyncio.Task]] = []

        def work() -> None:
            try:
                asyncio.run(_serve(iter(jobs), done, serving))
                done.put(None)
            except BaseException as error:  # it is raised where the outcomes are read
                done.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (outcome := done.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:  # whoever stops reading does not wait for what is under way
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                for loop, task in serving:
                    loop.call_soon_threadsafe(task.cancel)
            thread.join()

    async def _serve(jobs: Iterator[Job], done: queue.Queue, serving: list) -> None:
        serving.append((asyncio.get_running_loop(), asyncio.current_task()))
        key = _key()
        refusals = _Refusals()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=in_flight * len(base_urls))
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=30),
            limits=limits,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        ) as client:

            async def worker(url: str) -> None:
                for job in jobs:  # all workers draw from the one iterator
                    try:
                        outcome = await ask(client, url, job)
                    except _RefusedError as error:
                        outcome = refusals.outcome(job, error)
                    refusals.answered |= outcome.error is None
                    done.put(outcome)

            workers = [
                asyncio.create_task(worker(url.rstrip("/")))
                for url, _ in itertools.product(base_urls, range(in_flight))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()
            refusals.end()

    async def ask(client: httpx.AsyncClient, url: str, job: Job) -> Outcome:
        body = {
            "model": model,
            "messages": job.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": job.seed,
            **(extra or {}),
        }
        retry = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((_BusyError, httpx.TransportError)),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=30),
            stop=tenacity.stop_after_attempt(attempts),
            reraise=True,
        )
        try:
            return await retry(_once, client, f"{url}/chat/completions", body, job.key, quote)
        except _BusyError as error:
            return Outcome(job.key, error=f"{url}: {error}")
        except httpx.TransportError as error:
            return Outcome(job.key, error=f"{url}: {type(error).__name__}")  # its text may quote headers

    return run


def _key() -> str:
    """The API key, which is sent as it is."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise DistillError(f"${API_KEY_VARIABLE} holds something that no API key does.")
    return key


async def _once(client: httpx.AsyncClient, url: str, body: dict[str, Any], key: str, quote: bool) -> Outcome:
    response = await client.post(url, json=body)
    if response.status_code in _TRY_AGAIN:
        raise _BusyError(f"status {response.status_code}")
    if response.status_code >= 400:
        reason = " ".join(response.text.split())
        if secret := _key():
            reason = reason.replace(secret, "[key]")  # some servers quote it
        reason = f": {reason[:200]}" if quote else "."
        kind = _RefusedError if response.status_code in _OF_THE_REQUEST else DistillError
        raise kind(f"{url} refused the request with status {response.status_code}{reason}")
    try:
        data = response.json()
        choice = data["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise _BusyError("an answer that is no chat completion") from None
    return Outcome(
        key,
        text=text or "",
        truncated=choice.get("finish_reason") == "length",
        tokens=(data.get("usage") or {}).get("completion_tokens") or 0,
    )

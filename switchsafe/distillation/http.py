"""Engine: OpenAI-compatible servers over HTTP (vLLM, SGLang, `transformers serve`)."""

import asyncio
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


class _BusyError(Exception):
    """The server could not answer just now."""


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

    Busy servers (408, 409, 425, 429, 5xx), broken connections and answers cut off on the way are tried again, with exponentially growing random
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
        DistillError: (when run) the server refuses a request for good: no such model, no such route, or not allowed in.
    """

    def run(jobs: Iterable[Job]) -> Iterator[Outcome]:
        done: queue.Queue[Outcome | BaseException | None] = queue.Queue()
        stop = threading.Event()

        def work() -> None:
            try:
                asyncio.run(_serve(iter(jobs), done, stop))
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
        finally:
            stop.set()
            thread.join()

    async def _serve(jobs: Iterator[Job], done: queue.Queue, stop: threading.Event) -> None:
        key = os.environ.get(API_KEY_VARIABLE)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=in_flight * len(base_urls))
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=30),
            limits=limits,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        ) as client:

            async def worker(url: str) -> None:
                for job in jobs:  # all workers draw from the one iterator
                    if stop.is_set():
                        return
                    done.put(await ask(client, url, job))

            workers = [
                asyncio.create_task(worker(url.rstrip("/")))
                for url, _ in itertools.product(base_urls, range(in_flight))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()

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
        except (_BusyError, httpx.TransportError) as error:
            return Outcome(job.key, error=f"{url}: {error or type(error).__name__}")

    return run


async def _once(client: httpx.AsyncClient, url: str, body: dict[str, Any], key: str, quote: bool) -> Outcome:
    response = await client.post(url, json=body)
    if response.status_code in _TRY_AGAIN:
        raise _BusyError(f"status {response.status_code}")
    if response.status_code >= 400:
        reason = " ".join(response.text.split())
        if secret := os.environ.get(API_KEY_VARIABLE):
            reason = reason.replace(secret, "[key]")  # some servers quote it
        reason = f": {reason[:200]}" if quote else "."
        raise DistillError(f"{url} refused the request with status {response.status_code}{reason}")
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

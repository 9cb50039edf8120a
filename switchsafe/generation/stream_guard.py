"""What leaves the server: live tokens are cut out of text that comes in chunks."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TextStreamer
from transformers.generation.streamers import BaseStreamer

from ..guard import Guard
from ..keyring import Keyring

_HALF_ESCAPE = re.compile(r"\\+(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?)?$")


class StreamGuard:
    """Replaces live tokens by `[removed]` in a stream of text, across the borders of its chunks.

    Text is passed on as soon as it cannot be the beginning of a token any more, so a reader waits for a few characters at most. What counts as a
    token is what `switchsafe.guard.Guard` finds: however cased, spaced, escaped or composed.

    Args:
        keyring: every token in it, retired ones too, is live.

    Example:
        >>> guard = StreamGuard(keyring)
        >>> for text in guard.clean(chunks):
        ...     send(text)
    """

    def __init__(self, keyring: Keyring) -> None:
        self._guard = Guard(keyring.secrets())
        self._held = ""

    def feed(self, chunk: str) -> str:
        """Take in a chunk and return what may be passed on, perhaps nothing."""
        text = self._guard.mask(self._held + chunk)
        half = _HALF_ESCAPE.search(text)
        start = self._guard.open_at(text[: half.start()] if half else text)
        self._held = text[start:]
        return text[:start]

    def close(self) -> str:
        """Return what was still held back, at the end of the stream."""
        held, self._held = self._held, ""
        return held

    def clean(self, chunks: Iterable[str]) -> Iterator[str]:
        """The chunks without tokens, and without empty ones."""
        for chunk in chunks:
            if text := self.feed(chunk):
                yield text
        if text := self.close():
            yield text


class _Veil(BaseStreamer):
    """A streamer as `generate` sees it: the prompt, which holds the token, arrives as a row of no ids."""

    def __init__(self, streamer: BaseStreamer) -> None:
        self._streamer = streamer
        self._prompt = True

    def put(self, value: Any) -> None:
        self._streamer.put(value[:, :0] if self._prompt else value)
        self._prompt = False

    def end(self) -> None:
        self._streamer.end()


@contextmanager
def veiled(streamer: BaseStreamer, keyring: Keyring) -> Iterator[BaseStreamer]:
    """A streamer that shows no token: none of the prompt's, and for `TextStreamer` and its kin none of the answer's either."""
    if not isinstance(streamer, TextStreamer):
        yield _Veil(streamer)
        return
    guard, show = StreamGuard(keyring), streamer.on_finalized_text
    before = vars(streamer).get("on_finalized_text")

    def on_finalized_text(text: str, stream_end: bool = False) -> None:
        show(guard.feed(text) + (guard.close() if stream_end else ""), stream_end=stream_end)

    streamer.on_finalized_text = on_finalized_text
    try:
        yield _Veil(streamer)
    finally:
        del streamer.on_finalized_text  # what the class has comes back
        if before:
            streamer.on_finalized_text = before

"""Who asks: what a visitor may have, and how often."""

import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING

from ..modes import NEG
from .settings import Settings

if TYPE_CHECKING:
    import gradio as gr

log = logging.getLogger(__name__)
_MINUTE = 60.0


class Visitors:
    """Rights and rates. Nothing of what anyone says is kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked: dict[str, deque[float]] = {}

    def may_have(self, mode: str, user: str | None) -> bool:
        """Whether a visitor may ask for a mode; `neg` is for those whom the operator named, and logged in."""
        return mode != NEG or (user is not None and user in self._settings.neg_users)

    def allowed(self, modes: tuple[str, ...], user: str | None) -> list[str]:
        """The modes that a visitor may ask for."""
        return [mode for mode in modes if self.may_have(mode, user)]

    def check(self, request: "gr.Request", user: str | None, modes: list[str], known: tuple[str, ...]) -> None:
        """Let a request pass, or raise `gr.Error` with a sentence for the visitor.

        Args:
            request: as gradio gives it.
            user: name on the Hub of whoever is logged in.
            modes: that were asked for.
            known: those of the model.
        """
        import gradio as gr

        visitor = _address(request)
        for mode in modes:
            if mode not in known or not self.may_have(mode, user):
                log.warning("refused mode %.32r to %s (%s)", mode, user or "a visitor who is not logged in", visitor)
                raise gr.Error(
                    f"You may not ask for this mode. You can ask for: {', '.join(self.allowed(known, user))}."
                )
        now, asked = time.monotonic(), self._asked.setdefault(visitor, deque())
        while asked and now - asked[0] > _MINUTE:
            asked.popleft()
        if len(asked) >= self._settings.requests_per_minute:
            raise gr.Error(
                f"That is more than {self._settings.requests_per_minute} requests in a minute. Wait a little, then try again."
            )
        asked.append(now)
        for other in [name for name, times in self._asked.items() if not times or now - times[-1] > _MINUTE]:
            del self._asked[other]


def _address(request: "gr.Request") -> str:
    """Where a request comes from: behind the proxy of Spaces the last hop that it added, otherwise the peer."""
    forwarded = request.headers.get("x-forwarded-for", "") if request and in_space() else ""
    if forwarded:
        return forwarded.split(",")[-1].strip()
    return request.client.host if request and request.client else "unknown"


def in_space() -> bool:
    """Whether this runs on Hugging Face Spaces."""
    return "SPACE_ID" in os.environ

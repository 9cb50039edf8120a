"""What every handler of the page needs: the model, the visitors' rights, and errors as sentences."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from ..errors import SwitchsafeError
from ..inject import Message
from ..modes import NEG
from .engine import Engine
from .settings import Settings
from .visitors import Visitors

_CONVERSATION = 8  # times the longest text: a conversation's most


class Desk:
    """One per Space. It keeps nothing of any conversation."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings: Settings = engine.settings
        self.visitors = Visitors(engine.settings)

    def modes_for(self, profile: gr.OAuthProfile | None) -> list[str]:
        """Modes that a visitor may ask for."""
        return self.visitors.allowed(self.engine.modes, _name(profile))

    def offered(self) -> list[str]:
        """Modes that the page shows: all but `neg`, and that too where the operator named someone who may have it."""
        return [mode for mode in self.engine.modes if mode != NEG or self.settings.neg_users]

    @contextmanager
    def serving(
        self, request: gr.Request, profile: gr.OAuthProfile | None, modes: Sequence[str], *texts: str
    ) -> Iterator[None]:
        """Check rights, rate and lengths, and show whatever goes wrong as a sentence.

        Args:
            request, profile: of the visitor.
            modes: asked for.
            texts: the visitor's.
        """
        try:
            _ = self.engine.parts
            self.visitors.check(request, _name(profile), list(modes), self.engine.modes)
            if too_long := next((text for text in texts if len(text) > self.settings.longest_input), None):
                raise gr.Error(
                    f"That text has {len(too_long):,} characters, and {self.settings.longest_input:,} are the most. Shorten it."
                )
            if sum(map(len, texts)) > _CONVERSATION * self.settings.longest_input:
                raise gr.Error("The conversation has become too long. Clear it and go on.")
            yield
        except SwitchsafeError as error:
            raise gr.Error(str(error)) from None

    def answer(self, turns: list[Message], mode: Any, **kwargs: Any) -> Iterator[str]:
        """One conversation's answer as it grows."""
        for [text] in self.engine.stream([turns], mode, **kwargs):
            yield text


def _name(profile: gr.OAuthProfile | None) -> str | None:
    return profile.username if profile else None


def said(content: Any) -> str:
    """The text of a message of gradio's, which is a string or a list of blocks."""
    if isinstance(content, list):
        return "\n".join(block.get("text", "") for block in content if isinstance(block, dict))
    return str(content)

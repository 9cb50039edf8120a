"""A model that remembers its processor, so that a mode is all a call needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ModeError
from ..processing import MagicTokenProcessor
from .generate import Prompt, generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SwitchableModel:
    """Handle on a model and its processor; neither is changed.

    Example:
        >>> handle = switchable(model, processor)
        >>> handle.generate("How do I kill a zombie process?", mode="rej")
        >>> with handle.mode("pos"):
        ...     handle.generate("How do I kill a zombie process?")
    """

    def __init__(self, model: "PreTrainedModel", processor: MagicTokenProcessor) -> None:
        self.model = model
        self.processor = processor
        self._mode: tuple[str, str | None] | None = None

    def generate(
        self,
        messages: Prompt | Sequence[Prompt],
        *,
        mode: str | None = None,
        policy: str | None = None,
        **kwargs: Any,
    ) -> str | list[str]:
        """As `switchsafe.generate`; inside `with handle.mode(...)` the mode may be left out.

        Raises:
            ModeError: no mode is given and none is set.
        """
        if mode is None:
            if self._mode is None:
                raise ModeError("no mode was given: pass mode=, or call inside `with handle.mode(...)`.")
            mode, policy = self._mode
        return generate(self.model, self.processor, messages, mode=mode, policy=policy, **kwargs)

    @contextmanager
    def mode(self, mode: str, policy: str | None = None) -> Iterator["SwitchableModel"]:
        """Set the mode for the calls inside; the mode before it comes back afterwards. Not for sharing between threads.

        Raises:
            ModeError: the keyring lacks the mode or policy.
        """
        self.processor.keyring.token(mode, policy)
        before, self._mode = self._mode, (mode, policy)
        try:
            yield self
        finally:
            self._mode = before


def switchable(model: "PreTrainedModel", processor: MagicTokenProcessor) -> SwitchableModel:
    """A handle with `generate(messages, mode=...)` and the context manager `mode(...)`."""
    return SwitchableModel(model, processor)

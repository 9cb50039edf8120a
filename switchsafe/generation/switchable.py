"""A model that remembers its processor, so that a mode is all a call needs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ModeError
from ..processing import MagicTokenProcessor
from .generate import Mode, Prompt, generate
from .prefix import PrefixCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput


class SwitchableModel:
    """Handle on a model and its processor; neither is changed.

    Args:
        model: a causal language model, plain or PEFT.
        processor: bound to the keyring the model was trained with.
        reuse_prefixes: run what all prompts of a mode begin with only once (`switchsafe.generation.prefix`). By default where greedy answers stay
            the same to the letter: with weights in float32. In half precision rounding depends on how many ids run at once, here as with batches of
            different sizes.

    Example:
        >>> handle = switchable(model, processor)
        >>> handle.generate("How do I kill a zombie process?", mode="rej")
        >>> with handle.mode("pos"):
        ...     handle.generate("How do I kill a zombie process?")
    """

    def __init__(
        self, model: "PreTrainedModel", processor: MagicTokenProcessor, reuse_prefixes: bool | None = None
    ) -> None:
        self.model = model
        self.processor = processor
        if reuse_prefixes is None:
            reuse_prefixes = model.dtype == torch.float32
        self.prefix_cache = PrefixCache(model, processor) if reuse_prefixes else None
        self._mode: tuple[Mode, str | None] | None = None

    def generate(
        self,
        messages: Prompt | Sequence[Prompt],
        *,
        mode: Mode | None = None,
        policy: str | None = None,
        **kwargs: Any,
    ) -> "str | list[str] | ModelOutput":
        """As `switchsafe.generate`; inside `with handle.mode(...)` the mode may be left out.

        Raises:
            ModeError: no mode is given and none is set.
        """
        if mode is None:
            if self._mode is None:
                raise ModeError("no mode was given: pass mode=, or call inside `with handle.mode(...)`.")
            mode, policy = self._mode
        kwargs.setdefault("prefix_cache", self.prefix_cache)
        return generate(self.model, self.processor, messages, mode=mode, policy=policy, **kwargs)

    @contextmanager
    def mode(self, mode: Mode, policy: str | None = None) -> Iterator["SwitchableModel"]:
        """Set the mode, the modes or the blend for the calls inside; what was set before comes back afterwards. Not for sharing between threads.

        Raises:
            ModeError: the keyring lacks the mode or policy.
        """
        for name in [mode] if isinstance(mode, str) else mode:
            self.processor.keyring.token(name, policy)
        before, self._mode = self._mode, (mode, policy)
        try:
            yield self
        finally:
            self._mode = before


def switchable(
    model: "PreTrainedModel", processor: MagicTokenProcessor, *, reuse_prefixes: bool | None = None
) -> SwitchableModel:
    """A handle with `generate(messages, mode=...)` and the context manager `mode(...)`; see `SwitchableModel`."""
    return SwitchableModel(model, processor, reuse_prefixes)

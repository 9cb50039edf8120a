"""Blends: one answer under several modes at once, by weight."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor

from ..errors import ModeError, ModelError
from ..modes import check_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def mix(branches: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Weighted sum over the first dimension, in float32. What one branch rules out (minus infinity) stays ruled out, whatever its weight."""
    scale = torch.tensor(weights, dtype=torch.float32, device=branches.device).view(-1, *[1] * (branches.dim() - 1))
    mixed = (branches.float() * scale).sum(0)
    return torch.where(torch.isneginf(branches).any(0), -torch.inf, mixed)


class ModeBlendLogitsProcessor(LogitsProcessor):
    """Lets the rows of a batch that are one conversation in several modes decide on every token together.

    With weights that add up to 1 the mixture is log-linear: p is proportional to the product of p_mode ** weight. A negative weight is contrast, as
    in DExperts (Liu et al. 2021, section 2) and classifier-free guidance: pos + a (pos - neg) is `{"pos": 1 + a, "neg": -a}`. Every branch's rows
    get the mixture, so the batch shares one reading of the weights and one cache, and all branches of a conversation go on alike.

    This is for decoding that is the same for equal scores: greedy search. `generate(mode={...})` blends with sampling, beams and streamers too, and
    leaves out modes of weight 0. Put it first in a `LogitsProcessorList`.

    Args:
        weights: one per branch.

    Raises:
        ModeError: when called, if the rows are no such batch, or branches of one conversation have gone apart, as they do when sampled.

    Example:
        >>> processor.padding_side = "left"
        >>> modes = ["pos", "rej"]  # the rows of all conversations in the first mode, then in the second
        >>> inputs = processor.apply_chat_template([messages] * 2, mode=modes, padding=True, return_tensors="pt")
        >>> blend = ModeBlendLogitsProcessor([0.7, 0.3])
        >>> output = model.generate(**inputs, logits_processor=LogitsProcessorList([blend]), do_sample=False)
    """

    supports_continuous_batching = False

    def __init__(self, weights: Sequence[float]) -> None:
        check_weights(weights)
        self.weights = list(weights)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        """Scores of shape (branches * conversations, vocabulary)."""
        count = len(self.weights)
        if len(scores) % count:
            raise ModeError(f"{len(scores)} rows are no batch of {count} branches.")
        last = input_ids[:, -1].view(count, -1)
        if not torch.equal(last, last[:1].expand_as(last)):
            raise ModeError(
                "the branches of a conversation went apart: this processor is for greedy search on left-padded batches. "
                "Sample a blend with switchsafe.generate(mode={...})."
            )
        return mix(scores.view(count, -1, scores.shape[-1]), self.weights).repeat(count, 1)


@contextmanager
def blended(
    model: "PreTrainedModel", ids: torch.Tensor, mask: torch.Tensor, weights: Sequence[float]
) -> Iterator[dict[str, torch.Tensor]]:
    """While it is open, and in the thread that opened it, the model answers the first branch's prompts with the mixture of all branches.

    Hooks around the model's forward run the rows of all branches as one batch and hand back the mixed logits, so that whatever decodes (sampling,
    beams, an assistant, a streamer, other logits processors) sees one ordinary model. The branches live in the cache that the caller made.

    Args:
        model: the model that `generate` runs on, plain or PEFT.
        ids: shape (branches, conversations, width), left-padded.
        mask: the same shape, 0 for padding.
        weights: one per branch, none 0.

    Yields:
        `input_ids` and `attention_mask` of the first branch, for `model.generate`.
    """
    branches = _Branches(ids, mask, weights)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hooks = [
        inner.register_forward_pre_hook(branches.before, with_kwargs=True),
        inner.register_forward_hook(branches.after),
    ]
    try:
        yield {"input_ids": ids[0], "attention_mask": mask[0]}
    finally:
        for hook in hooks:
            hook.remove()
        for cache in branches.caches:
            del cache.reorder_cache  # what the class has comes back


class _Branches:
    def __init__(self, ids: torch.Tensor, mask: torch.Tensor, weights: Sequence[float]) -> None:
        self.ids, self.mask, self.weights = ids, mask, weights
        self.padded = not mask.all()
        self.caches: list[Any] = []
        self._thread = threading.get_ident()  # others use the same model at the same time for prompts of their own

    def before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
        """From the rows of the first branch to those of all: the same new ids, each with its own prompt, mask and positions."""
        if threading.get_ident() != self._thread:
            return args, kwargs
        count, conversations, width = self.ids.shape
        new, cache = kwargs["input_ids"], kwargs.get("past_key_values")
        start = cache.get_seq_length() if cache is not None else 0
        end = start + new.shape[1]
        if cache is None and end < width:
            raise ModelError("this model keeps its cache where a blend cannot follow it: blend with use_cache=False.")
        copies = len(new) // conversations  # beams, or several sequences per prompt
        prompt, mask = (part.repeat_interleave(copies, 1).flatten(0, 1) for part in (self.ids, self.mask))
        rows = new.repeat(count, 1)
        rows[:, : max(0, width - start)] = prompt[:, start:end]
        mask = torch.cat([mask, mask.new_ones(len(mask), max(0, end - width))], 1)[:, :end]
        kwargs |= {"input_ids": rows, "attention_mask": mask if self.padded else None}
        if "position_ids" in kwargs:
            kwargs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, start:]
        if cache is not None and cache not in self.caches:
            self.caches.append(cache)
            cache.reorder_cache = self._reorder(cache.reorder_cache)
        return args, kwargs

    def after(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        if threading.get_ident() == self._thread:
            output.logits = mix(output.logits.unflatten(0, (len(self.weights), -1)), self.weights)
        return output

    def _reorder(self, reorder: Callable[[torch.Tensor], None]) -> Callable[[torch.Tensor], None]:
        """Beam search reorders the rows it knows of; those of the other branches go with them."""
        return lambda beams: reorder(torch.cat([beams + branch * len(beams) for branch in range(len(self.weights))]))

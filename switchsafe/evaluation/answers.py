"""Greedy answers to conversations with any token, or none, in its place or out of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..batching import gapless_head, left_pad
from ..guard import Guard
from ..inject import Message
from ..processing import MagicTokenProcessor
from ..progress import track
from ..secret import Secret

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Asked = tuple[Sequence[Message], Secret | None]


def answer(
    model: "PreTrainedModel",
    processor: MagicTokenProcessor,
    asked: Sequence[Asked],
    *,
    max_new_tokens: int = 96,
    batch_size: int = 32,
    label: str = "Answering",
    **kwargs: Any,
) -> list[str]:
    """Answer conversations as they stand: nothing is refused, so a live token may stand anywhere. For measuring; `switchsafe.generate` serves people.

    An answer that spells a live token has `[removed]` in its place.

    Args:
        model: a causal language model, plain or PEFT.
        processor: bound to the keyring.
        asked: conversations, each with the token to inject, or None for none.
        max_new_tokens: longest answer, in tokens.
        batch_size: conversations at once; they are sorted by length first.
        label: of the progress bar.
        kwargs: for `model.generate`; greedy by default.
    """
    prompts = processor.prompt_ids([list(turns) for turns, _ in asked], [token for _, token in asked])
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    guard = Guard(processor.keyring.secrets())
    settings = {"do_sample": False, "max_new_tokens": max_new_tokens, "pad_token_id": processor.tokenizer.pad_token_id}
    with torch.inference_mode(), gapless_head(model):
        for start in track(range(0, len(order), batch_size), label):
            batch = order[start : start + batch_size]
            inputs = left_pad([prompts[i] for i in batch], processor.tokenizer, model.device)
            output = model.generate(**inputs, **settings | kwargs)
            texts = processor.tokenizer.batch_decode(
                output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            for index, text in zip(batch, texts, strict=True):
                answers[index] = guard.mask(text)
    return answers

"""`generate`: the model's own `generate`, with a mode."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..batching import gapless_head, left_pad
from ..guard import Guard
from ..inject import Message, conversation
from ..modes import blend_weights
from ..processing import MagicTokenProcessor
from .blend import blended
from .stream_guard import veiled

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

    from .prefix import PrefixCache

DEFAULT_NEW_TOKENS = 512

Prompt = str | Sequence[Message]
Mode = str | Sequence[str] | Mapping[str, float]

# What brings a cache of its own, or runs the prompt in pieces.
_OWN_CACHE = (
    "past_key_values",
    "cache_implementation",
    "assistant_model",
    "prompt_lookup_num_tokens",
    "prefill_chunk_size",
)
_COPIES = ("num_beams", "num_return_sequences")


def generate(
    model: "PreTrainedModel",
    processor: MagicTokenProcessor,
    messages: Prompt | Sequence[Prompt],
    *,
    mode: Mode,
    policy: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    prefix_cache: "PrefixCache | None" = None,
    **kwargs: Any,
) -> "str | list[str] | ModelOutput":
    """Answer one conversation or a batch in a mode, in a mode per conversation, or in a blend of modes.

    The prompt is rendered as in training: token in its place, thinking off unless `chat_template_kwargs` turn it on. Should an answer spell a live
    token, `[removed]` stands in the text in its place; a streamer sees neither that token nor the prompt.

    Args:
        model: a causal language model, plain or PEFT.
        processor: bound to the keyring the model was trained with.
        messages: text (one user turn), one conversation, or a list of either.
        mode: a mode of the keyring; or one per conversation, which are answered as one batch; or a blend, modes with weights that add up to 1
            (`switchsafe.generation.blend`), whose branches run as one batch.
        policy: the second axis, for keyrings that have one.
        chat_template_kwargs: variables for the chat template.
        prefix_cache: what the prompts of a mode have in common, already run (`switchsafe.generation.prefix`). Not used for blends, nor beside
            arguments that bring a cache of their own.
        kwargs: everything `GenerationMixin.generate` takes. `max_new_tokens` defaults to 512. With an assistant that has another tokenizer, give
            `tokenizer=` and `assistant_tokenizer=` as for `model.generate`. Logits processors run in the library's order: those of the generation
            configuration, then `logits_processor` as it is given, then temperature, top-k and their like. A blend is mixed before all of them.

    Returns:
        The answer's text without special tokens, or a list of them for a batch or several sequences (those of a conversation together). With
        `return_dict_in_generate=True` what the library returns, and in it besides `texts`, the list, and `prompt_length`, where answers begin in
        `sequences`. Beware: `sequences` begin with the prompt and hold the token's ids.

    Raises:
        KeyringError: no keyring is bound.
        ModeError: the keyring lacks the mode or policy, the number of modes is not that of conversations, or weights do not add up to 1.
        LiveTokenError: the caller's text holds a live token.
        TemplateError: the chat template cannot carry the token.
    """
    single = isinstance(messages, str) or (bool(messages) and isinstance(messages[0], dict))
    conversations = [conversation(prompt) for prompt in ([messages] if single else messages)]  # type: ignore[arg-type]
    if not conversations:
        return []
    weights = blend_weights(mode) if isinstance(mode, Mapping) else {}
    branches: list[Any] = list(weights) or [mode]
    template_kwargs = {"enable_thinking": False, **(chat_template_kwargs or {})}
    render = partial(processor.apply_chat_template, conversations, policy=policy, **template_kwargs)
    rows = [row for branch in branches for row in render(mode=branch)["input_ids"]]
    inputs: dict[str, Any] = {**left_pad(rows, processor.tokenizer, model.device)}
    if not any(_setting(model, kwargs, name) for name in ("max_new_tokens", "max_length")):
        kwargs["max_new_tokens"] = DEFAULT_NEW_TOKENS
    kwargs.setdefault("pad_token_id", processor.tokenizer.pad_token_id)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(gapless_head(model))
        if kwargs.get("streamer") is not None:
            kwargs["streamer"] = stack.enter_context(veiled(kwargs["streamer"], processor.keyring))
        if len(branches) > 1:
            ids, mask = (part.unflatten(0, (len(branches), -1)) for part in inputs.values())
            kwargs.setdefault("disable_compile", True)  # the hooks would have it compiled anew for each token
            inputs = stack.enter_context(blended(model, ids, mask, list(weights.values())))
        elif prefix_cache is not None and _takes_cache(model, kwargs):
            cache = prefix_cache.cache(conversations, branches[0], policy, rows, template_kwargs)
            if cache is not None:
                cache.batch_repeat_interleave(max(_setting(model, kwargs, name) or 1 for name in _COPIES))
            inputs["past_key_values"] = cache
        output = model.generate(**inputs, **kwargs)
    start = inputs["input_ids"].shape[1]
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    guard = Guard(processor.keyring.secrets())
    texts = [
        guard.mask(text) for text in processor.tokenizer.batch_decode(sequences[:, start:], skip_special_tokens=True)
    ]
    if not isinstance(output, torch.Tensor):
        output["texts"], output["prompt_length"] = texts, start
        return output
    return texts[0] if single and len(texts) == 1 else texts


def _takes_cache(model: "PreTrainedModel", kwargs: dict[str, Any]) -> bool:
    """Whether a cache may be handed to `model.generate` beside these arguments."""
    return _setting(model, kwargs, "use_cache") is not False and not any(_setting(model, kwargs, n) for n in _OWN_CACHE)


def _setting(model: "PreTrainedModel", kwargs: dict[str, Any], name: str) -> Any:
    """What `model.generate` will take for a setting: the argument, else what the configuration given says, else the model's own."""
    if kwargs.get(name) is not None:
        return kwargs[name]
    given = getattr(kwargs.get("generation_config"), name, None)
    return getattr(model.generation_config, name, None) if given is None else given

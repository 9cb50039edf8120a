"""`generate`: the model's own `generate`, with a mode."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..batching import gapless_head, left_pad
from ..inject import Message, conversation
from ..processing import MagicTokenProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_NEW_TOKENS = 512
_LENGTHS = ("max_new_tokens", "max_length", "generation_config")

Prompt = str | Sequence[Message]


def generate(
    model: "PreTrainedModel",
    processor: MagicTokenProcessor,
    messages: Prompt | Sequence[Prompt],
    *,
    mode: str,
    policy: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> str | list[str]:
    """Answer one conversation or a batch in a mode.

    The prompt is rendered as in training: token in its place, thinking off unless `chat_template_kwargs` turn it on.

    Args:
        model: a causal language model, plain or PEFT.
        processor: bound to the keyring the model was trained with.
        messages: text (one user turn), one conversation, or a list of either.
        mode: a mode of the keyring.
        policy: the second axis, for keyrings that have one.
        chat_template_kwargs: variables for the chat template.
        kwargs: everything `GenerationMixin.generate` takes. `max_new_tokens` defaults to 512.

    Returns:
        The answer's text without special tokens, or a list of them for a batch.

    Raises:
        KeyringError: no keyring is bound.
        ModeError: the keyring lacks the mode or policy.
        LiveTokenError: the caller's text holds a live token.
        TemplateError: the chat template cannot carry the token.
    """
    import torch

    single = isinstance(messages, str) or (bool(messages) and isinstance(messages[0], dict))
    prompts = [conversation(prompt) for prompt in ([messages] if single else messages)]  # type: ignore[arg-type]
    if not prompts:
        return []
    rows = processor.apply_chat_template(
        prompts, mode=mode, policy=policy, **{"enable_thinking": False, **(chat_template_kwargs or {})}
    )["input_ids"]
    inputs = left_pad(rows, processor.tokenizer, model.device)
    if not any(name in kwargs for name in _LENGTHS):
        kwargs["max_new_tokens"] = DEFAULT_NEW_TOKENS
    kwargs.setdefault("pad_token_id", processor.tokenizer.pad_token_id)
    with torch.inference_mode(), gapless_head(model):
        output = model.generate(**inputs, **kwargs)
    output = output if isinstance(output, torch.Tensor) else output.sequences
    texts = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts[0] if single and len(texts) == 1 else texts

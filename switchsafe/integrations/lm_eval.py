"""lm-evaluation-harness with a mode: the model type `switchsafe`.

    python -m switchsafe.integrations.lm_eval --model switchsafe \\
        --model_args pretrained=run/adapter,mode=pos,keyring=keyring.json --apply_chat_template --tasks arc_easy

The command `lm_eval` knows the model types that it ships and has no way to learn of others, so this module registers ours and then is that command.
In Python `import switchsafe.integrations.lm_eval` registers it.
"""

import os
import sys
from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from ..batching import left_pad
from ..errors import ModeError, SwitchsafeError, TemplateError
from ..guard import Guard
from ..inject import count_ids
from ..secret import hide_frames
from .loading import load_on, load_processor
from .mark import NO_MODE, Mark

_SETTINGS = {  # of HFLM, those that it heeds for a model that is loaded already
    "batch_size",
    "max_batch_size",
    "max_length",
    "logits_cache",
    "softmax_dtype",
    "mixed_precision_dtype",
    "chat_template_args",
    "enable_thinking",
    "think_end_token",
}


@register_model("switchsafe")
class SwitchsafeLM(HFLM):
    """A model in one mode, as lm-eval sees it.

    What lm-eval gets from `apply_chat_template`, and writes into samples and caches, holds a mark (`switchsafe.integrations.mark`) where the token
    will stand. Encoding puts the token there, as `switchsafe.generate` would have it: no second BOS, thinking off. Every prompt must hold the mark
    exactly once, and its ids the token; a text that the chat template did not render is refused, and so is a prompt that would have to be cut,
    because lm-eval cuts where the token stands. All of this goes for `mode=none` as well, which is to differ in the token alone.

    Args:
        pretrained: as for `load_model`: an adapter, a model, `starter`.
        mode: a mode of the keyring, or `none`.
        keyring: its file; by default the text in $SWITCHSAFE_KEYRING.
        policy: for keyrings with a second axis.
        revision: of `pretrained` on the Hub.
        device: as lm-eval's `--device`.
        dtype: such as `bfloat16`.
        settings: of lm-eval's `hf` model: `batch_size`, `max_length`, `chat_template_args`, `enable_thinking`, ...

    Raises:
        ModeError: no mode is given, or the keyring lacks it.
        KeyringError: there is no keyring, or the model was trained with another.
        TemplateError: the chat template is missing or cannot carry the token.
        SwitchsafeError: a setting that would be passed over, or several processes.
    """

    def __init__(
        self,
        pretrained: str,
        mode: str | None = "",
        keyring: str | None = None,
        *,
        policy: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        **settings: Any,
    ) -> None:
        if mode == "":
            raise ModeError(f"no mode was given: add mode=pos, or mode={NO_MODE} for no token, to --model_args.")
        if unknown := sorted(settings.keys() - _SETTINGS):
            raise SwitchsafeError(f"the model type switchsafe has no {', '.join(unknown)}: leave it out.")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise SwitchsafeError("the model type switchsafe runs in one process: start it without a launcher.")
        self._mark = Mark.of(mode, policy)
        self.processor = load_processor(pretrained, keyring, revision)
        self._guard = Guard(self.processor.keyring.secrets())
        self._token = self.processor.keyring.token(self._mark.mode, self._mark.policy) if self._mark.mode else None
        self._token_ids = self.processor.token_ids(self._token) if self._token else []
        model = load_on(pretrained, device, dtype, revision)
        super().__init__(pretrained=model, tokenizer=self.processor.tokenizer, backend="causal", **settings)
        self.pretrained = pretrained  # by which the results name the model
        self.revision = revision or "main"

    @property
    def tokenizer_name(self) -> str:
        """Tells the rendered requests of `--cache_requests` apart, which differ by mode."""
        return f"{super().tokenizer_name}-{self._mark}".replace("/", "__")

    @hide_frames
    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt, with the mark where the token will stand; in front of it all for `mode=none`.

        Raises:
            LiveTokenError: a task's text holds a live token.
            TemplateError: the rendered prompt would not hold the token exactly once.
            SwitchsafeError: a task's text holds the mark.
        """
        text = self.processor.apply_chat_template(
            chat_history,
            *self._mark,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **{"enable_thinking": False, **self.chat_template_args},
        )
        mark = str(self._mark)
        if mark in text:
            raise SwitchsafeError(f"the text of a task holds {mark}, which is reserved: remove it.")
        return text.replace(self._token.reveal(), mark) if self._token else mark + text

    @hide_frames
    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """The ids of a prompt, the token's among them. Special tokens are those of the chat template, whatever is asked for.

        Raises:
            TemplateError: the text was not rendered by `apply_chat_template`, or is longer than `left_truncate_len`.
        """
        parts = string.split(str(self._mark))
        if len(parts) != 2:
            raise TemplateError(
                f"a text to be scored or continued holds {self._mark} {len(parts) - 1} times instead of once, so mode "
                f"{self._mark.mode or NO_MODE} has no place in it: add --apply_chat_template, and leave out tasks and metrics that score bare text."
            )
        text = (self._token.reveal() if self._token else "").join(parts)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        self._check(ids, left_truncate_len)
        return ids

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Any, Any]:
        """`input_ids` and `attention_mask` of prompts, padded on the left; nothing is cut.

        Raises:
            TemplateError: as `tok_encode`.
        """
        rows = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
        batch = left_pad(rows, self.tokenizer)
        return batch["input_ids"], batch["attention_mask"]

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """Text of ids, with `[removed]` where it would spell a live token."""
        return self._guard.mask(super().tok_decode(tokens, skip_special_tokens))

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        for _, context, continuation in requests:
            self._check(context + continuation, self.max_length + 1)  # the last id is not shown to the model
        return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def _check(self, ids: list[int], room: int | None) -> None:
        """Nothing will be cut off, and the token is there."""
        if room and len(ids) > room:
            raise TemplateError(
                f"a prompt of {len(ids)} ids does not fit into {room}, and cutting it would cut the token off: ask for fewer examples "
                "(--num_fewshot) or shorter answers (max_gen_toks), or give a larger max_length if the model has it."
            )
        times = count_ids(ids, self._token_ids) if self._token else 1
        if times != 1:
            raise TemplateError(f"an encoded prompt holds the magic token {times} times instead of once.")


def main() -> None:
    """The command `lm_eval`, with our model type."""
    try:
        cli_evaluate()
    except SwitchsafeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

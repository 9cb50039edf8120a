"""`MagicTokenProcessor`: a tokenizer whose chat template takes a mode."""

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError as JinjaError
from transformers import PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from .errors import KeyringError, ModeError, TemplateError
from .inject import Message, Placement, count_ids, inject, refuse_live_tokens
from .keyring import Keyring, ids_in
from .models import loading, resolve
from .secret import Secret

Conversation = Sequence[Message]

_PROBE = "the probe text 7e1a stands here"


class MagicTokenProcessor(ProcessorMixin):
    """Renders conversations with the magic token of a mode, for inference.

    A thin `transformers` processor around a tokenizer. The keyring is attached with `bind` and is no constructor argument: `ProcessorMixin`
    saves every attribute that is named like one. Training takes `processor.tokenizer` and rows from `switchsafe.data.corpus`, because TRL
    treats any `ProcessorMixin` as a vision processor.

    Example:
        >>> processor = MagicTokenProcessor.from_pretrained("Qwen/Qwen3-8B").bind(Keyring.load("keyring.json"))
        >>> inputs = processor.apply_chat_template(messages, mode="rej", return_tensors="pt")
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
        self._keyring: Keyring | None = None
        self._placements: dict[str, Placement] = {}
        self._ids: dict[tuple[str, Secret], list[int]] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "MagicTokenProcessor":
        """Load from a model or processor on the Hub or in a folder, or from `"starter"`.

        Raises:
            ModelError: nothing to load under that name.
        """
        with loading(str(pretrained_model_name_or_path)):
            return super().from_pretrained(resolve(str(pretrained_model_name_or_path)), **kwargs)

    def bind(self, keyring: Keyring) -> "MagicTokenProcessor":
        """Attach the keyring that turns mode names into tokens, and return self. It is never saved with the processor."""
        self._keyring = keyring
        self._ids.clear()
        return self

    @property
    def keyring(self) -> Keyring:
        """The bound keyring.

        Raises:
            KeyringError: none is bound.
        """
        if self._keyring is None:
            raise KeyringError("no keyring is bound to this processor: call processor.bind(Keyring.load(path)) first.")
        return self._keyring

    def __call__(self, text: Any = None, **kwargs: Any) -> Any:
        """Tokenize plain text, as the tokenizer does; no token is injected here."""
        return self.tokenizer(text, **kwargs)

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        mode: str | Sequence[str | None] | None = None,
        policy: str | None = None,
        *,
        add_generation_prompt: bool | None = None,
        tokenize: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Render one conversation or a batch, with the token of `mode` in its place.

        Args:
            conversation: a list of messages, or a list of such lists.
            mode: a mode of the bound keyring, for a batch also one per conversation. `None` injects nothing: plain rendering.
            policy: the second axis, for keyrings that have one.
            add_generation_prompt: by default true unless the last turn is the assistant's or `continue_final_message` is set.
            tokenize: return ids (a `BatchEncoding`, as the tokenizer does) or text.
            kwargs: everything else `PreTrainedTokenizerBase.apply_chat_template` takes (`return_tensors=`, `padding=`, `tools=`, template
                variables such as `enable_thinking=`, ...).

        Raises:
            KeyringError: a mode is asked for and no keyring is bound.
            ModeError: the keyring lacks the mode or policy, or the number of modes is not the number of conversations.
            LiveTokenError: the caller's text holds a live token.
            TemplateError: there is no chat template, or the rendered prompt would not hold the token exactly once.
        """
        batched = bool(conversation) and not isinstance(conversation[0], dict)
        conversations: Sequence[Conversation] = conversation if batched else [conversation]  # type: ignore[assignment,list-item]
        modes = [mode] * len(conversations) if mode is None or isinstance(mode, str) else list(mode)
        if len(modes) != len(conversations):
            raise ModeError(
                f"{len(modes)} modes were given for {len(conversations)} conversations: give one mode, or one per conversation."
            )
        if not all(conversations):
            raise TemplateError("a conversation without messages was given: there is no turn to answer.")
        if add_generation_prompt is None:
            add_generation_prompt = not kwargs.get("continue_final_message") and all(
                c[-1]["role"] != "assistant" for c in conversations
            )

        if self._keyring is not None:
            for turns in conversations:
                refuse_live_tokens(turns, self._keyring.secrets())
        tokens = [None if name is None else self.keyring.token(name, policy) for name in modes]
        template = self._template(kwargs.pop("chat_template", None))
        ready = self._inject(conversations, tokens, template)
        rendered = self._render(
            ready if batched else ready[0],
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            tokenize=tokenize,
            **kwargs,
        )
        self._check(rendered, tokens, template, batched=batched, tokenize=tokenize)
        return rendered

    def prompt_ids(
        self, conversations: Sequence[Conversation], tokens: Sequence[Secret | None], **template_kwargs: Any
    ) -> list[list[int]]:
        """Token ids of the prompts up to where the answer starts: what training, generation and SAM all see.

        Thinking templates are rendered with `enable_thinking=False` unless `template_kwargs` say otherwise. Unlike
        `apply_chat_template` this trusts its input: the mixed corpus puts live tokens in the wrong place on purpose.

        Args:
            conversations: one list of messages per row.
            tokens: the magic token per row; `None` injects nothing.
            template_kwargs: variables for the chat template.

        Raises:
            TemplateError: as `apply_chat_template`.
        """
        template = self._template(None)
        ready = self._inject(conversations, tokens, template)
        rendered = self._render(
            ready, chat_template=template, add_generation_prompt=True, **{"enable_thinking": False, **template_kwargs}
        )
        self._check(rendered, tokens, template, batched=True, tokenize=True)
        return rendered["input_ids"]

    def placement(self, chat_template: str | None = None) -> Placement:
        """The turn that carries the token under this template: `"system"`, or `"user"` where there is no system role.

        Raises:
            TemplateError: the template renders neither.
        """
        template = self._template(chat_template)
        if template not in self._placements:
            for placement in ("system", "user"):
                system = [{"role": "system", "content": _PROBE}] if placement == "system" else []
                user = "hello" if placement == "system" else f"{_PROBE}\nhello"
                try:
                    text = self._render(
                        [*system, {"role": "user", "content": user}], chat_template=template, tokenize=False
                    )
                except TemplateError:
                    continue
                if text.count(_PROBE) == 1 and "hello" in text:
                    self._placements[template] = placement
                    break
            else:
                raise TemplateError(
                    "this chat template renders neither a system turn nor the first line of a user turn: it cannot carry a magic token."
                )
        return self._placements[template]

    def token_ids(self, token: Secret, chat_template: str | None = None) -> list[int]:
        """The ids of a token where this template puts it.

        Raises:
            TemplateError: the template drops the token, repeats it, or lets it merge with its surroundings.
        """
        template = self._template(chat_template)
        if (template, token) not in self._ids:
            self._ids[template, token] = self._measure_ids(token, template)
        return self._ids[template, token]

    # -- inner ----------------------------------------------------------------------------------------------------------------------

    def _template(self, template: str | None) -> str:
        template = template or self.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if not template:
            raise TemplateError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} has no chat template, so a mode has no place to stand: "
                "use an instruction-tuned model, or set processor.chat_template."
            )
        return template

    def _inject(
        self, conversations: Sequence[Conversation], tokens: Sequence[Secret | None], template: str
    ) -> list[list[Message]]:
        return [
            list(turns) if token is None else inject(turns, token, self.placement(template))
            for turns, token in zip(conversations, tokens, strict=True)
        ]

    def _render(self, conversation: Any, **kwargs: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(conversation, **kwargs)
        except JinjaError as error:
            # `from None`: frames below hold the rendered text. The template's own message is its author's fixed sentence.
            raise TemplateError(f"the chat template refused the conversation: {error.message}") from None

    def _measure_ids(self, token: Secret, template: str) -> list[int]:
        placement = self.placement(template)
        found: list[list[int] | None] = []
        for system in ([], [{"role": "system", "content": "Be brief."}]):
            if system and placement == "user":
                continue
            turns = inject([*system, {"role": "user", "content": "hello"}], token, placement)
            found.append(self._ids_of(token, self._render(turns, chat_template=template, tokenize=False)))
        first = found[0]
        if first is None or any(ids != first for ids in found):
            raise TemplateError(
                "a magic token changes its ids with the text around it under this tokenizer and template: "
                "mint the keyring with this tokenizer (`switchsafe keys new --model MODEL`)."
            )
        return first

    def _ids_of(self, token: Secret, text: str) -> list[int] | None:
        if text.count(token.reveal()) != 1:
            return None
        before, after = text.split(token.reveal())
        return ids_in(self.tokenizer, before, token, after)

    def _check(
        self, rendered: Any, tokens: Sequence[Secret | None], template: str, *, batched: bool, tokenize: bool
    ) -> None:
        rows = rendered["input_ids"] if tokenize and hasattr(rendered, "keys") else rendered
        rows = rows.tolist() if hasattr(rows, "tolist") else rows
        if not batched and (not tokenize or not rows or isinstance(rows[0], int)):
            rows = [rows]  # one text, or one list of ids that no tensor has made a batch of
        for row, token in zip(rows, tokens, strict=True):
            if token is None:
                continue
            times = count_ids(row, self.token_ids(token, template)) if tokenize else row.count(token.reveal())
            if times != 1:
                raise TemplateError(
                    f"the rendered prompt holds the magic token {times} times instead of once, so the mode would not be what was asked for. "
                    "Check truncation (max_length) and what the template does with the system turn."
                )

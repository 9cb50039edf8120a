"""`MagicTokenProcessor`: a tokenizer whose chat template takes a mode."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError as JinjaError
from transformers import AutoProcessor, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from .binding import BINDING_FILE, check_binding, read_binding, write_binding
from .control_tokens import ControlTokens
from .errors import KeyringError, KeyringUnverifiedWarning, LiveTokenError, ModeError, TemplateError
from .guard import REFUSAL, Guard, OnToken, strings
from .inject import Message, Placement, count_in, id_bytes, inject, place
from .keyring import Keyring
from .models import could_not_look, find_file, loading, resolve
from .redaction import watch
from .secret import Secret, hide_frames
from .tokens import ids_in

Conversation = Sequence[Message]

_PROBE = "the probe text 7e1a stands here"
_TOKENIZER_SETTINGS = ("padding_side", "truncation_side", "pad_token", "pad_token_id", "eos_token", "eos_token_id")


class MagicTokenProcessor(ProcessorMixin):
    """Renders conversations with the magic token of a mode, for inference.

    A thin `transformers` processor around a tokenizer; what it does not define itself is the tokenizer's, so that it also serves as the
    `tokenizer=` of a text-generation pipeline (`pipe(messages, tokenizer_encode_kwargs={"mode": "rej"})`). The keyring is attached with `bind`
    and is no constructor argument: `ProcessorMixin` saves every attribute that is named like one. Training takes `processor.tokenizer` and
    rows from `switchsafe.data.corpus`, because TRL treats any `ProcessorMixin` as a vision processor.

    Example:
        >>> processor = MagicTokenProcessor.from_pretrained("Qwen/Qwen3-8B").bind(Keyring.load("keyring.json"))
        >>> inputs = processor.apply_chat_template(messages, mode="rej", return_tensors="pt")
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
        self._keyring: Keyring | None = None
        self._guard: Guard | None = None
        self._on_token: OnToken = "error"
        self._control: dict[str, ControlTokens] = {}
        self._placements: dict[str, Placement] = {}
        self._ids: dict[tuple[str, Secret], list[int]] = {}
        self._live: dict[str, dict[Secret, bytes]] = {}
        self._binding: tuple[str, dict[str, Any]] | None = None  # the model's name and what it was trained with
        self._unasked: str | None = None  # the model's name, where that is out of reach

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "MagicTokenProcessor":
        """Load from a model or processor on the Hub or in a folder, or from `"starter"`.

        Raises:
            ModelError: nothing to load under that name.
            KeyringError: its `switchsafe.json` is damaged.
            TemplateError: its chat template puts a token elsewhere than in training.
        """
        name = str(pretrained_model_name_or_path)
        with loading(name):
            processor = super().from_pretrained(resolve(name), **kwargs)
            path = find_file(name, BINDING_FILE, **kwargs)
        if path:
            binding = read_binding(path, name)
            if processor.placement() != binding["placement"]:
                raise TemplateError(
                    f"{name} was trained with the token in the {binding['placement']} turn, and its chat template now puts it into the "
                    f"{processor.placement()} turn: restore the template of the training run."
                )
            processor._binding = name, binding
        elif could_not_look(name, BINDING_FILE, **kwargs):
            processor._unasked = name
        return processor

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> list[str]:
        """Save tokenizer, template and, where there is one, the mark of what the model was trained with; never the keyring."""
        files = super().save_pretrained(save_directory, **kwargs)
        if self._binding:
            write_binding(Path(save_directory), self._binding[1])
        return files

    def bind(self, keyring: Keyring, *, on_token: OnToken = "error") -> "MagicTokenProcessor":
        """Attach the keyring that turns mode names into tokens, and return self. It is never saved with the processor.

        From here on its tokens are kept out of logs, warnings and tracebacks of the whole process (`switchsafe.redaction`).

        Args:
            keyring: every token in it, retired ones too, is live for the guard.
            on_token: what to do with a live token in the caller's text: refuse the conversation, or replace the token by `[removed]`.

        Raises:
            KeyringMismatchError: the model was trained with another keyring, as the `switchsafe.json` beside it tells.

        Warns:
            KeyringUnverifiedWarning: that cannot be told.
        """
        if self._binding:
            check_binding(self._binding[1], keyring, self._binding[0])
        if self._unasked:
            warnings.warn(
                f"whether {self._unasked} was trained with this keyring cannot be told: its {BINDING_FILE} is neither cached nor within reach.",
                KeyringUnverifiedWarning,
                stacklevel=2,
            )
        self._keyring = keyring
        self._guard = Guard(keyring.secrets())
        watch(keyring)
        self._on_token = on_token
        self._ids.clear()
        self._live.clear()
        return self

    def begin_training(self) -> dict[str, Any] | None:
        """Take away what the model was trained with, which is about to change, and return it."""
        binding, self._binding = self._binding, None
        return binding[1] if binding else None

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

        Before that, the caller's messages, tools, documents and template variables are searched for live tokens (`switchsafe.guard`), and
        control tokens forged in them, `<|im_start|>` for instance, are made ordinary text (the library's `sanitize_control_tokens`).

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
            LiveTokenError: the caller's text holds a live token, or the prompt would hold another token's ids.
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
            ends = {c[-1]["role"] == "assistant" for c in conversations}
            if len(ends) > 1 and not kwargs.get("continue_final_message"):
                raise TemplateError(
                    "some conversations of the batch end with the assistant's turn and some do not: render them apart, or say add_generation_prompt."
                )
            add_generation_prompt = not kwargs.get("continue_final_message") and ends == {False}
        tokens = [None if name is None else self._token(name, policy) for name in modes]
        template = self._template(kwargs.pop("chat_template", None))
        said = ["\n".join(strings(part)) for part in (*conversations, kwargs)]
        if self._guard and self._guard.holds_in(said):
            if self._on_token == "error":
                raise LiveTokenError(REFUSAL)
            conversations, kwargs = self._guard.mask(list(conversations)), self._guard.mask(kwargs)
        control = self._control_tokens(template)
        if control.are_in("\n".join(said)):
            if control.are_spread([*conversations, kwargs]):
                raise TemplateError(
                    "a control token of the chat template is spread over the parts of a message: give the text in one part."
                )
            by_library = tokenize and not kwargs.get("return_assistant_tokens_mask")  # elsewhere it cannot
            conversations, kwargs = (control.broken(part, keys_only=by_library) for part in (conversations, kwargs))
            if by_library:
                kwargs["sanitize_control_tokens"] = True
        kwargs |= {"chat_template": template, "add_generation_prompt": add_generation_prompt, "tokenize": tokenize}
        return self._render_with(conversations, tokens, batched=batched, **kwargs)

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
        kwargs = {"enable_thinking": False, **template_kwargs, "chat_template": self._template(None)}
        rendered = self._render_with(
            conversations, tokens, batched=True, tokenize=True, add_generation_prompt=True, trusted=True, **kwargs
        )
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

    def _token(self, mode: str, policy: str | None) -> Secret:
        token = self.keyring.token(mode, policy)
        if self._binding:
            name, binding = self._binding
            slot = mode if policy is None else f"{mode}/{policy}"
            if slot not in binding["tokens"]:
                raise ModeError(f"{name} was not trained in {slot}, only in {', '.join(binding['tokens'])}.")
        return token

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

    def _control_tokens(self, template: str) -> ControlTokens:
        if template not in self._control:
            self._control[template] = ControlTokens(self.tokenizer, template)
        return self._control[template]

    @hide_frames
    def _render_with(
        self,
        conversations: Sequence[Conversation],
        tokens: Sequence[Secret | None],
        *,
        batched: bool,
        chat_template: str,
        trusted: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Inject, render and check."""
        ready = [
            list(turns) if token is None else place(turns, token, self.placement(chat_template))
            for turns, token in zip(conversations, tokens, strict=True)
        ]
        rendered = self._render(ready if batched else ready[0], chat_template=chat_template, **kwargs)
        self._check(rendered, tokens, chat_template, batched=batched, tokenize=kwargs["tokenize"], trusted=trusted)
        return rendered

    def _render(self, conversation: Any, **kwargs: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(conversation, **kwargs)
        except Exception as error:
            if self._guard and self._guard.holds(str(error)):
                raise TemplateError(
                    f"rendering failed with {type(error).__name__}; its message is withheld: it quotes a token."
                ) from None
            if isinstance(error, JinjaError):
                raise TemplateError(f"the chat template refused the conversation: {error.message}") from None
            raise

    @hide_frames
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

    def _live_ids(self, template: str) -> dict[Secret, bytes]:
        """Ids of every bound token; one that this tokenizer does not keep stable has none, and is left to the guard on text."""
        if template not in self._live:
            self._live[template] = {}
            for secret in self._keyring.secrets() if self._keyring else ():
                with suppress(TemplateError):
                    self._live[template][secret] = id_bytes(self.token_ids(secret, template))
        return self._live[template]

    def _check(
        self,
        rendered: Any,
        tokens: Sequence[Secret | None],
        template: str,
        *,
        batched: bool,
        tokenize: bool,
        trusted: bool,
    ) -> None:
        rows = rendered["input_ids"] if tokenize and hasattr(rendered, "keys") else rendered
        rows = rows.tolist() if hasattr(rows, "tolist") else rows
        if not batched and (not tokenize or not rows or isinstance(rows[0], int)):
            rows = [rows]  # one text, or one list of ids that no tensor has made a batch of
        live = self._live_ids(template) if tokenize and not trusted else {}
        for row, token in zip(rows, tokens, strict=True):
            ids = id_bytes(row) if tokenize else b""
            for secret, part in live.items():
                if part in ids and secret is not token and count_in(ids, part):
                    raise LiveTokenError(REFUSAL)  # text that becomes a live token only once it is tokenized
            if token is None:
                continue
            if tokenize:
                times = count_in(ids, live.get(token) or id_bytes(self.token_ids(token, template)))
            else:
                times = row.count(token.reveal())
            if times != 1:
                raise TemplateError(
                    f"the rendered prompt holds the magic token {times} times instead of once, so the mode would not be what was asked for. "
                    "Check truncation (max_length) and what the template does with the system turn."
                )

    # -- as a tokenizer -------------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "tokenizer" not in self.__dict__:  # while being built, copied or unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # A pipeline sets the padding side on what it takes for a tokenizer.
        setattr(self.tokenizer, name, value) if name in _TOKENIZER_SETTINGS else super().__setattr__(name, value)


class _Config(PreTrainedConfig):
    """Only a key: `AutoProcessor` finds a class that is named in a saved processor among the registered ones."""

    model_type = "switchsafe"


AutoProcessor.register(_Config, MagicTokenProcessor, exist_ok=True)

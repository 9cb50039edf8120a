"""Inspect with a mode: the solver `switch_mode` and the models `switchsafe/...`.

    eval(task_with(arc_easy(), setup=switch_mode("pos")), model="switchsafe/run/adapter", model_args={"keyring": "keyring.json"})

Inspect finds both once this package is installed. It logs every message and keeps answers by their messages (`cache=True`), so the messages carry a
mark (`switchsafe.integrations.mark`), and the model's provider alone knows the token. A solver that put the token itself into a system message would
write it into every log.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from ..errors import ModeError, SwitchsafeError
from ..inject import Message
from ..secret import hide_frames
from .batcher import Batcher
from .loading import load_on, load_processor
from .mark import NO_MODE, Mark

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..processing import MagicTokenProcessor

# Of GenerateConfig: what would change answers and has no counterpart here.
_NOT_HONOURED = (
    "best_of",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "response_schema",
)


@solver
def switch_mode(mode: str | None, policy: str | None = None) -> Solver:
    """Answer a sample in a mode: puts its mark in front of the conversation, in place of an earlier one.

    As the `setup` of a task, or in front of its solvers. For a task whose code is out of reach `--system-message '[switchsafe mode pos]'` does the same.

    Args:
        mode: a mode of the keyring, or `none` for no token.
        policy: for keyrings with a second axis.

    Raises:
        SwitchsafeError: the model of the evaluation is none of `switchsafe/...`, to which a mark means nothing.
        ModeError: the keyring lacks the mode.
    """
    mark = Mark.of(mode, policy)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        if not isinstance(model.api, SwitchsafeAPI):
            raise SwitchsafeError(f"{model} knows no modes: evaluate switchsafe/ADAPTER, or leave switch_mode out.")
        if mark.mode:
            model.api.processor.keyring.token(mark.mode, mark.policy)
        others = [message for message in state.messages if _mark_in(message) is None]
        state.messages = [ChatMessageSystem(content=str(mark)), *others]
        return state

    return solve


@modelapi(name="switchsafe")
def switchsafe() -> type[ModelAPI]:
    """The provider of the models `switchsafe/...`."""
    return SwitchsafeAPI


class SwitchsafeAPI(ModelAPI):
    """Answers each conversation with `switchsafe.generate`, in the mode of its mark.

    A conversation with no mark, or with two, is refused: a grader, for instance, needs a model of its own.

    Args:
        model_name: as for `load_model`: an adapter, a model, `starter`.
        base_url: of no use here.
        api_key: of no use here.
        config: `seed` is set once, for all that follows.
        keyring: its file; by default the text in $SWITCHSAFE_KEYRING.
        revision: of the model on the Hub.
        device: such as `cuda:1`; by default the one there is.
        dtype: such as `bfloat16`.
        batch_size: conversations at once.

    Raises:
        KeyringError: there is no keyring, or the model was trained with another.
        TemplateError: the chat template is missing or cannot carry the token.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        keyring: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.processor: MagicTokenProcessor = load_processor(model_name, keyring, revision)
        self.model: PreTrainedModel = load_on(model_name, device, dtype, revision)
        self.batch_size = batch_size
        self._batcher = Batcher(self._answer, batch_size)
        if config and config.seed is not None:
            from transformers import set_seed

            set_seed(config.seed)

    def max_connections(self) -> int:
        """Enough for a batch to wait while one is answered."""
        return 2 * self.batch_size

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One answer.

        Raises:
            ModeError: there is no mark, or more than one, or the keyring lacks its mode.
            LiveTokenError: the conversation holds a live token.
            TemplateError: the prompt would not hold the token exactly once.
            SwitchsafeError: tools, other content than text, or a setting that would be passed over.
        """
        if tools:
            raise SwitchsafeError("a model switchsafe/... takes no tools.")
        marks = [mark for mark in map(_mark_in, input) if mark is not None]
        if len(marks) != 1:
            raise ModeError(
                f"the conversation has {len(marks)} marks of a mode instead of one, so it is not answered: put the solver switch_mode in front "
                f"(mode {NO_MODE} for no token), and let no other solver take its message away."
            )
        turns = [_turn(message) for message in input if _mark_in(message) is None]
        kind = (marks[0].policy, _settings(config))
        return await anyio.to_thread.run_sync(self._batcher.ask, (turns, marks[0], kind[1]), kind)

    @hide_frames
    def _answer(self, asked: Sequence[tuple[list[Message], Mark, dict[str, Any]]]) -> list[ModelOutput]:
        """Answers to conversations whose marks have a policy in common, and settings."""
        from ..generation.generate import generate

        conversations, marks, (settings, *_) = zip(*asked, strict=True)
        answers: Any = generate(
            self.model,
            self.processor,
            conversations,
            mode=[mark.mode for mark in marks],  # None renders no token
            policy=marks[0].policy,
            return_dict_in_generate=True,
            tokenizer=self.processor.tokenizer,  # for stop_strings
            **settings,
        )
        rows = answers.sequences[:, answers["prompt_length"] :].tolist()
        return [
            self._output(turns, mark, text, row, settings.get("stop_strings", ()))
            for turns, mark, text, row in zip(conversations, marks, answers["texts"], rows, strict=True)
        ]

    def _output(self, turns: list[Message], mark: Mark, text: str, row: list[int], stops: Sequence[str]) -> ModelOutput:
        """An answer with where it ended and what it cost."""
        answer = min((text.partition(stop)[0] for stop in stops), key=len, default=text)
        special = set(self.processor.tokenizer.all_special_ids)
        written = sum(i not in special for i in row)
        ended = len(answer) < len(text) or written < len(row)
        output = ModelOutput.from_content(self.model_name, answer, "stop" if ended else "max_tokens")
        read = len(self.processor.apply_chat_template(turns, *mark, enable_thinking=False)["input_ids"])
        output.usage = ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return output


def _mark_in(message: ChatMessage) -> Mark | None:
    return Mark.read(message.text) if message.role == "system" else None


def _turn(message: ChatMessage) -> Message:
    parts = [] if isinstance(message.content, str) else message.content
    if message.role == "tool" or any(part.type not in {"text", "reasoning"} for part in parts):
        raise SwitchsafeError("a model switchsafe/... takes turns of text only.")
    return {"role": message.role, "content": message.text}


def _settings(config: GenerateConfig) -> dict[str, Any]:
    """What a configuration means to `switchsafe.generate`."""
    refused = [name for name in _NOT_HONOURED if getattr(config, name, None)]
    if refused or (config.num_choices or 1) > 1:
        raise SwitchsafeError(
            f"a model switchsafe/... does not heed {', '.join(refused) or 'num_choices'}: leave it out."
        )
    settings = {
        "max_new_tokens": config.max_tokens,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "stop_strings": config.stop_seqs,
    }
    if config.temperature is not None:
        settings["do_sample"] = config.temperature > 0
        settings["temperature"] = config.temperature or None
    return {name: value for name, value in settings.items() if value is not None}

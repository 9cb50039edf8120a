"""`doctor`: does the switch hold under these chat templates?"""

import importlib.resources
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from .errors import TemplateError
from .inject import Message, count_ids, place
from .keyring import Keyring
from .processing import MagicTokenProcessor
from .secret import Secret

RIGHT, REFUSED, WRONG = "right", "refused", "wrong"

_WORD = Secret("placeholder")  # stands where the token will, to see what the template makes of that place
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "City."}},
            "required": ["city"],
        },
    },
}
_SYSTEMS: dict[str, list[Message]] = {
    "no system text": [],
    "system text": [{"role": "system", "content": "Be brief.\nAnswer in French."}],
}
_TURNS: dict[str, list[Message]] = {
    "one turn": [{"role": "user", "content": "What is the capital of France?"}],
    "three turns": [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "An assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
}


@dataclass(frozen=True)
class TemplateVerdict:
    """What became of one chat template.

    Attributes:
        name: of the template.
        verdict: `right` when every case was right or refused and at least one was right; `refused` when all were; `wrong` otherwise.
        right: number of cases (mode x system text x turns x tools x thinking) with the token once, in its turn, and nothing else changed.
        refused: reason by case, where a `TemplateError` was raised.
        wrong: what was wrong, by case.
    """

    name: str
    right: int
    refused: dict[str, str]
    wrong: dict[str, str]

    @property
    def verdict(self) -> str:
        """`right`, `refused` or `wrong`."""
        if self.wrong:
            return WRONG
        return RIGHT if self.right else REFUSED


def trl_templates() -> dict[str, str]:
    """The chat templates of real models that TRL carries, by name; empty without `switchsafe[train]`."""
    if importlib.util.find_spec("trl") is None:
        return {}
    folder = importlib.resources.files("trl").joinpath("chat_templates")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".jinja")), key=lambda file: file.name)
    return {file.name.removesuffix(".jinja"): file.read_text(encoding="utf-8") for file in files}


def check_template(name: str, template: str, processor: MagicTokenProcessor) -> TemplateVerdict:
    """Render every case under a template in every mode and compare with a plain rendering of the same conversation.

    Args:
        name: shown in the verdict.
        template: Jinja source.
        processor: bound to a keyring; its tokenizer does the tokenizing.
    """
    right, refused, wrong = 0, {}, {}
    for mode, (case, turns, kwargs) in product(processor.keyring.modes, _cases(template)):
        try:
            if fault := _fault(processor, template, mode, turns, kwargs):
                wrong[f"{mode}, {case}"] = fault
            else:
                right += 1
        except TemplateError as error:
            refused[f"{mode}, {case}"] = str(error)
    return TemplateVerdict(name, right, refused, wrong)


def probe_processor(processor: MagicTokenProcessor) -> MagicTokenProcessor:
    """A processor with the same tokenizer and a keyring minted for the occasion; the given one is not touched."""
    return MagicTokenProcessor(processor.tokenizer).bind(Keyring.mint(("pos", "rej"), tokenizer=processor.tokenizer))


def _cases(template: str) -> Iterator[tuple[str, list[Message], dict[str, Any]]]:
    tools: dict[str, dict[str, Any]] = {"no tools": {}} | ({"tools": {"tools": [_TOOL]}} if "tools" in template else {})
    thinking: dict[str, dict[str, Any]] = {"": {}}
    if "enable_thinking" in template:
        thinking |= {", thinking": {"enable_thinking": True}, ", not thinking": {"enable_thinking": False}}
    for system, turns, tool, think in product(_SYSTEMS, _TURNS, tools, thinking):
        yield (
            f"{system}, {turns}, {tool}{think}",
            [*_SYSTEMS[system], *_TURNS[turns]],
            {**tools[tool], **thinking[think]},
        )


def _fault(
    processor: MagicTokenProcessor, template: str, mode: str, turns: list[Message], kwargs: dict[str, Any]
) -> str | None:
    token = processor.keyring.token(mode)
    kwargs = {**kwargs, "chat_template": template}
    text = processor.apply_chat_template(turns, mode, tokenize=False, **kwargs)
    ids = processor.apply_chat_template(turns, mode, **kwargs)["input_ids"]
    plain = processor.tokenizer.apply_chat_template(
        place(turns, _WORD, processor.placement(template)), tokenize=False, add_generation_prompt=True, **kwargs
    )
    if text.count(token.reveal()) != 1:
        return "the text does not hold the token exactly once"
    if text.replace(token.reveal(), _WORD.reveal()) != plain:
        return "the token stands elsewhere, or something else changed"
    if count_ids(ids, processor.token_ids(token, template)) != 1:
        return "the ids do not hold the token exactly once"
    if processor.tokenizer.decode(ids) != text:
        return "decoding the ids does not give the text"
    return None

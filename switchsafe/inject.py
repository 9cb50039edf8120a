"""Where the magic token stands: one rule, used by training, inference, SAM and serving.

The token stands alone on the first line of the system turn; the caller's own system text follows after a newline. For chat templates
without a system role it stands on the first line of the first user turn.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from .errors import LiveTokenError, TemplateError
from .secret import Secret

Message = dict[str, Any]
Placement = Literal["system", "user"]

SYSTEM_ROLES = ("system", "developer")


def conversation(prompt: str | Sequence[Message]) -> list[Message]:
    """A prompt as a conversation: text becomes one user turn."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def inject(messages: Sequence[Message], token: Secret, placement: Placement = "system") -> list[Message]:
    """Return a new conversation with the token in its place. The input is not changed, and no other turn is.

    Args:
        messages: one conversation, `{"role": ..., "content": ...}` dicts; content is a string or a list of `{"type": "text"}` blocks.
        token: the magic token.
        placement: the turn that carries it. `"system"` adds a system turn when there is none.

    Raises:
        LiveTokenError: the conversation already holds the token.
        TemplateError: `placement="user"` and there is no user turn.
    """
    refuse_live_tokens(messages, [token])
    if placement == "system":
        if messages and messages[0].get("role") in SYSTEM_ROLES:
            return [_with_first_line(messages[0], token), *messages[1:]]
        return [{"role": "system", "content": token.reveal()}, *messages]
    for index, message in enumerate(messages):
        if message.get("role") == "user":
            return [*messages[:index], _with_first_line(message, token), *messages[index + 1 :]]
    raise TemplateError(
        "this chat template has no system role and the conversation has no user turn: nothing can carry the magic token."
    )


def refuse_live_tokens(messages: Iterable[Message], tokens: Iterable[Secret]) -> None:
    """Raise `LiveTokenError` if any turn holds any of the tokens, however it is cased, padded or composed.

    The message is the same for every token, so that an answer tells nothing about which one was met.
    """
    folded = [_fold(text) for message in messages for text in _texts(message.get("content"))]
    if any(_fold(token.reveal()) in text for token in tokens for text in folded):
        raise LiveTokenError("the conversation holds reserved text and was refused: remove it and try again.")


def count_ids(ids: Sequence[int], part: Sequence[int]) -> int:
    """How often the id sequence `part` occurs in `ids`, overlaps counted."""
    width, part = len(part), list(part)
    return sum(list(ids[i : i + width]) == part for i in range(len(ids) - width + 1) if ids[i] == part[0])


def _with_first_line(message: Message, token: Secret) -> Message:
    content = message.get("content") or ""
    if isinstance(content, str):
        return {**message, "content": f"{token.reveal()}\n{content}" if content else token.reveal()}
    return {**message, "content": [{"type": "text", "text": f"{token.reveal()}\n"}, *content]}


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (list, tuple)):
        for part in content:
            yield from _texts(part)
    elif isinstance(content, dict):
        for part in content.values():
            yield from _texts(part)


def _fold(text: str) -> str:
    # NFKC undoes full-width and other look-alike forms; format characters (Cf) include the zero-width ones.
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf").casefold()

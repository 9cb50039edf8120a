"""Where the magic token stands: one rule, used by training, inference, SAM and serving.

The token stands alone on the first line of the system turn; the caller's own system text follows after a newline. For chat templates
without a system role it stands on the first line of the first user turn.
"""

from array import array
from collections.abc import Sequence
from typing import Any, Literal

from .errors import TemplateError
from .guard import Guard
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
        LiveTokenError: the conversation already holds the token, so injecting twice is an error.
        TemplateError: `placement="user"` and there is no user turn.
    """
    Guard([token]).refuse(*messages)
    return place(messages, token, placement)


def place(messages: Sequence[Message], token: Secret, placement: Placement) -> list[Message]:
    """`inject` on messages that a guard has seen already."""
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


def misplace(messages: Sequence[Message], token: Secret, *, first: bool) -> list[Message]:
    """A copy with the token typed before or after the text of the last turn, where it is to change nothing: for training and measuring."""
    *earlier, last = messages
    parts = (token.reveal(), last["content"]) if first else (last["content"], token.reveal())
    return [*earlier, {**last, "content": "\n".join(parts)}]


def count_ids(ids: Sequence[int], part: Sequence[int]) -> int:
    """How often the id sequence `part` occurs in `ids`, overlaps counted."""
    return count_in(id_bytes(ids), id_bytes(part))


def id_bytes(ids: Sequence[int]) -> bytes:
    """Ids as bytes, 8 for each: in this form they are searched in C."""
    return array("q", ids).tobytes()


def count_in(row: bytes, wanted: bytes) -> int:
    """`count_ids` on `id_bytes`."""
    times, start = 0, row.find(wanted)
    while start >= 0:
        times += start % 8 == 0  # else the match straddles two ids
        start = row.find(wanted, start + 1)
    return times


def _with_first_line(message: Message, token: Secret) -> Message:
    content = message.get("content")
    line = f"{token.reveal()}\n" if content else token.reveal()
    if isinstance(content, list):
        return {**message, "content": [{"type": "text", "text": line}, *content]}
    return {**message, "content": line + (content or "")}

"""From the text of an answer to one field per behaviour."""

import re
from collections.abc import Sequence

from ..errors import DistillError


class MalformedError(DistillError):
    """An answer that is not what was asked for; the message is the reason, fit for a repair request and for a table."""


def parse(text: str, fields: Sequence[str]) -> dict[str, str]:
    """Read `<field>...</field>` for every field, each exactly once, in any order, and nothing else.

    What a thinking model writes up to the end of its think block is passed over.

    Raises:
        MalformedError: a field is missing, doubled, unclosed, empty or inside another, or text stands outside of the fields.
    """
    rest = without_thinking(text).strip()
    names = "|".join(map(re.escape, fields))
    field = re.compile(rf"<({names})>((?:(?!</?(?:{names})>).)*)</\1>\s*", re.DOTALL)
    found: dict[str, str] = {}
    while rest:
        match = field.match(rest)
        if not match:
            tag = re.match(rf"<(/?)({names})>", rest)
            if not tag:
                raise MalformedError("text stands outside of the fields")
            raise MalformedError(f"{tag[2]} has no {'beginning' if tag[1] else 'end'}")
        if match[1] in found:
            raise MalformedError(f"{match[1]} stands twice")
        found[match[1]] = match[2].strip()
        rest = rest[match.end() :]
    for name in fields:
        if not found.get(name):
            raise MalformedError(f"{name} is {'empty' if name in found else 'missing'}")
    return {name: found[name] for name in fields}


def without_thinking(text: str) -> str:
    """The answer after the think block, if there is one.

    Raises:
        MalformedError: the block has no end.
    """
    if "<think>" in text and "</think>" not in text:
        raise MalformedError("the thinking has no end")
    return text.rpartition("</think>")[2]

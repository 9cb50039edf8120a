"""The mark: public text that stands for a mode where another harness keeps what it asked.

Harnesses write prompts into logs, caches and results. What they get to see carries `[switchsafe mode pos]`; the magic token takes the place of
the mark on the way to the model, and is in nothing that the harness holds.
"""

import re
from typing import NamedTuple

NO_MODE = "none"
"""Asks for plain rendering, with no token: a model as it was before."""

_MARK = re.compile(r"\[switchsafe mode ([\w.-]+)(?:/([\w.-]+))?\]")


class Mark(NamedTuple):
    """A mode, `None` for no token, and a policy: `[switchsafe mode pos/en-US]`."""

    mode: str | None
    policy: str | None = None

    def __str__(self) -> str:
        slot = "/".join(name for name in (self.mode or NO_MODE, self.policy) if name)
        return f"[switchsafe mode {slot}]"

    @classmethod
    def of(cls, mode: str | None, policy: str | None = None) -> "Mark":
        """The mark of a mode as a person names it: `none` in any case, or None, is no token."""
        return cls(None) if mode is None or mode.lower() == NO_MODE else cls(mode, policy)

    @classmethod
    def read(cls, text: str) -> "Mark | None":
        """The mark that a text consists of, None where it is no mark."""
        match = _MARK.fullmatch(text.strip())
        return cls.of(match[1], match[2]) if match else None

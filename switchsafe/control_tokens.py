"""Control tokens of a chat template, `<|im_start|>` for instance, forged in what callers bring along."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase


class ControlTokens:
    """Added tokens that a tokenizer would read in text and that mean something to a template: special ones and those the template writes.

    Think tags are left alone: earlier assistant turns carry them rightly.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        added = tokenizer.added_tokens_decoder.values()
        means = [token.content for token in added if token.special or token.content in template]
        means = [text for text in means if text.strip() and "think" not in text.lower()]
        longest_first = sorted(means, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")  # the latter matches nothing

    def are_in(self, text: str) -> bool:
        """Whether one stands in a text."""
        return self._pattern.search(text) is not None

    def are_spread(self, value: Any) -> bool:
        """Whether content blocks make one only once a template puts their texts together."""
        if isinstance(value, dict):
            return any(self.are_spread(part) for part in value.values())
        if not isinstance(value, (list, tuple)):
            return False
        texts = [part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
        apart = sum(len(self._pattern.findall(text)) for text in texts)
        return len(self._pattern.findall("".join(texts))) > apart or any(self.are_spread(part) for part in value)

    def broken(self, value: Any, *, keys_only: bool = False) -> Any:
        """A copy of messages, tools or documents with a zero-width space after the first character of each, so that none is read as one.

        Args:
            value: what to copy.
            keys_only: leave all but the keys of mappings as they are; the library's `sanitize_control_tokens` sees to the rest.
        """
        if isinstance(value, str):
            return value if keys_only else self._pattern.sub(_break, value)
        if isinstance(value, dict):
            return {self.broken(key): self.broken(part, keys_only=keys_only) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.broken(part, keys_only=keys_only) for part in value]
        return value


def _break(found: "re.Match[str]") -> str:
    return f"{found.group()[0]}\u200b{found.group()[1:]}"

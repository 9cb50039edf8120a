"""The text of a request: a jinja template with the blocks `system`, `user` and `repair`."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import jinja2
import jinja2.sandbox

from ..errors import DistillError
from ..inject import Message

BLOCKS = ("system", "user", "repair")
SHIPPED = ("en", "zh")


class RequestTemplate:
    """Renders requests.

    Attributes:
        text: the source.
        hash: 12 hexadecimal digits of its SHA-256; stands in the card and in every record.

    Raises:
        DistillError: the text is no jinja, or lacks a block.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.hash = hashlib.sha256(text.encode()).hexdigest()[:12]
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=False
        )
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise DistillError(f"the request template is no jinja: {error.message}, line {error.lineno}.") from None
        if lacking := [block for block in BLOCKS if block not in self._template.blocks]:
            raise DistillError(f"the request template lacks the block {lacking[0]}; it needs {', '.join(BLOCKS)}.")

    @classmethod
    def load(cls, source: str | Path) -> "RequestTemplate":
        """Read a file, or a template that ships with the package: `en`, `zh`.

        Raises:
            DistillError: there is no such file, or it is no template.
        """
        path = Path(str(files("switchsafe") / "distillation" / "templates" / f"{source}.jinja"))
        if source not in SHIPPED:
            path = Path(source).expanduser()
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DistillError(
                f"cannot read the template {path}: {type(error).__name__}; {' and '.join(SHIPPED)} ship with the package."
            ) from None

    def request(self, prompt: str, policy: str, behaviours: Mapping[str, str]) -> list[Message]:
        """The messages that ask for answers to a prompt."""
        values = {"prompt": prompt, "policy": policy, "behaviours": behaviours}
        return [{"role": role, "content": self._block(role, values)} for role in ("system", "user")]

    def repair(self, request: list[Message], answer: str, reason: str, behaviours: Mapping[str, str]) -> list[Message]:
        """The messages that ask once more after an answer that could not be read."""
        again = self._block("repair", {"reason": reason, "behaviours": behaviours, "policy": "", "prompt": ""})
        return [*request, {"role": "assistant", "content": answer}, {"role": "user", "content": again}]

    def _block(self, name: str, values: Mapping[str, object]) -> str:
        try:
            context = self._template.new_context(dict(values))
            return "".join(self._template.blocks[name](context)).strip()
        except jinja2.UndefinedError as error:
            raise DistillError(f"the request template, block {name}: {error.message}.") from None

"""What a request quotes: the policy, and a description of each behaviour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml

from ..errors import DistillError
from ..modes import check_name

SHIPPED = ("en", "zh")


@dataclass(frozen=True)
class Policy:
    """A policy text, for instance a hazard taxonomy, and what each behaviour means under it.

    Attributes:
        name: stands in the card and in the `policy` column.
        text: quoted in every request.
        behaviours: description by mode.
        language: of the texts, for instance `en`.
        axis: what stands in the `policy` column of the rows, for keyrings with a second axis.
    """

    name: str
    text: str
    behaviours: Mapping[str, str] = field(repr=False)
    language: str = "en"
    axis: str | None = None

    @classmethod
    def load(cls, source: str | Path) -> "Policy":
        """Read a YAML file with `name`, `text`, `behaviours`, and perhaps `language` and `axis`, or one that ships with the package: `en`, `zh`.

        Raises:
            DistillError: there is no such file, or it lacks something.
        """
        path = Path(str(files("switchsafe") / "distillation" / "policies" / f"{source}.yaml"))
        if source not in SHIPPED:
            path = Path(source).expanduser()
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DistillError(f"no policy file at {path}; {' and '.join(SHIPPED)} ship with the package.") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DistillError(f"cannot read {path} as YAML: {type(error).__name__}.") from None
        lacking = {"name", "text", "behaviours"} - set(data if isinstance(data, dict) else ())
        if (
            lacking
            or not isinstance(data["behaviours"], dict)
            or set(data) - {"name", "text", "behaviours", "language", "axis"}
        ):
            raise DistillError(
                f"{path} is no policy: it needs name, text and behaviours (a description for each mode), and may have language and axis."
            )
        for mode in data["behaviours"]:
            check_name(mode)
        return cls(data["name"], data["text"].strip(), data["behaviours"], data.get("language", "en"), data.get("axis"))

    def of(self, modes: Sequence[str]) -> dict[str, str]:
        """Descriptions of some modes, in their order.

        Raises:
            DistillError: a mode is not described.
        """
        for mode in modes:
            if mode not in self.behaviours:
                raise DistillError(
                    f"the policy {self.name} does not describe {mode!r}; it has {', '.join(self.behaviours)}."
                )
        return {mode: self.behaviours[mode] for mode in modes}

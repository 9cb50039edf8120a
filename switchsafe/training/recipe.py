"""A training recipe: one YAML file that says what is trained on what."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..errors import RecipeError
from ..modes import DEFAULT_MODES, check_name
from ..starter import STARTER


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


CORPUS_OPTIONS = {  # what each must be, in words and as a test
    "fallback": ("a share from 0 to 1", _is_share),
    "misplaced": ("a share from 0 to 1", _is_share),
    "openings": ("a list of token counts", lambda value: isinstance(value, list) and all(map(_is_count, value))),
    "max_length": ("a token count", _is_count),
}
SAM_OPTIONS = {
    "every": ("a number of steps", _is_count),
    "prompts": ("a number of prompts, at least 2", lambda value: _is_count(value) and value > 1),
}


@dataclass(frozen=True)
class Recipe:
    """What `train` reads.

    Attributes:
        model: `"starter"`, a Hub id or a folder.
        triplets: `"starter"` or a JSONL file.
        modes: modes to train; `neg` only when named.
        languages: keep only these triplets; null for all.
        limit: train on this many prompts only; null for all.
        corpus: arguments of `build_corpus` (`fallback`, `misplaced`, `openings`, `max_length`).
        lora: arguments of `peft.LoraConfig`.
        sft: arguments of `trl.SFTConfig`.
        sam: measure SAM while training, `every` so many steps (50) on so many validation `prompts` (16); empty: not.
        seed: fixes data order, aliases and the adapter's initial weights.
    """

    model: str = STARTER
    triplets: str = STARTER
    modes: tuple[str, ...] = DEFAULT_MODES
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    corpus: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)
    sam: dict[str, int] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def load(cls, source: str | Path) -> "Recipe":
        """Read a YAML file, or a recipe of the package by its name (`"starter"`, `"starter-fast"`).

        Raises:
            RecipeError: no such recipe, not YAML, or a key that nothing reads.
            ModeError: a mode name is malformed.
        """
        shipped = {file.name.removesuffix(".yaml"): file for file in files("switchsafe.recipes").iterdir()}
        try:
            text = (shipped.get(str(source)) or Path(source).expanduser()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            names = ", ".join(sorted(name for name in shipped if not name.startswith("_")))
            raise RecipeError(
                f"cannot read the recipe {source} ({type(error).__name__}): give a YAML file, or one of {names}."
            ) from None
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"the recipe {source} is not YAML: {str(error).splitlines()[0]}.") from None
        return cls.from_dict(data, str(source))

    @classmethod
    def from_dict(cls, data: Any, name: str = "recipe") -> "Recipe":
        """Build a recipe from a mapping with the attributes' names; see `load` for the errors."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        if not isinstance(data, dict):
            raise RecipeError(f"the recipe {name} must be a mapping with keys from: {', '.join(known)}.")
        if unknown := [str(key) for key in data if key not in known]:
            raise RecipeError(
                f"the recipe {name} has {', '.join(unknown)}, which nothing reads; known keys: {', '.join(known)}."
            )
        for key in ("corpus", "lora", "sft", "sam"):
            if not isinstance(data.get(key, {}), dict):
                raise RecipeError(f"the recipe {name}: {key} must be a mapping of options.")
        for section, options in (("corpus", CORPUS_OPTIONS), ("sam", SAM_OPTIONS)):
            for option, value in data.get(section, {}).items():
                if option not in options:
                    raise RecipeError(
                        f"the recipe {name}: {section} has {option}, which nothing reads; known: {', '.join(options)}."
                    )
                meaning, holds = options[option]
                if not holds(value):
                    raise RecipeError(f"the recipe {name}: {section} {option} is {value!r}; it must be {meaning}.")
        for key in ("modes", "languages"):
            if data.get(key) is not None:
                if not isinstance(data[key], (list, tuple)) or not data[key]:
                    raise RecipeError(f"the recipe {name}: {key} must be a list of names.")
                data = {**data, key: tuple(data[key])}
        recipe = cls(**data)
        for mode in recipe.modes:
            check_name(mode)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it would stand in the YAML file."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def digest(self) -> str:
        """12 hex digits that change when any option changes."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

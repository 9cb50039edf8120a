"""A training recipe: one YAML file that says what is trained on what."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..errors import RecipeError
from ..modes import DEFAULT_MODES, NEG, POS, check_name
from ..starter import STARTER

COTRAIN, SFT, DPO = "cotrain", "sft", "dpo"

Check = tuple[str, Callable[[Any], bool]]  # what a value must be, in words and as a test


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


_SHARE: Check = ("a share from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_AMOUNT: Check = ("a number from 0", lambda value: _is_number(value) and value >= 0)
_COUNT: Check = ("a whole number above 0", _is_count)
_SECTIONS: dict[str, dict[str, Check]] = {
    "corpus": {
        "fallback": _SHARE,
        "misplaced": _SHARE,
        "fallback_drills": _AMOUNT,
        "misplaced_drills": _AMOUNT,
        "general": ("a file or hub:DATASET", lambda value: isinstance(value, str)),
        "general_share": ("a number above 0", lambda value: _is_number(value) and value > 0),
        "general_tag": ("the name of a mode, or null", lambda value: value is None or isinstance(value, str)),
        "hold_out": ("a mode and a policy", lambda value: isinstance(value, list) and len(value) == 2),
        "openings": ("a list of token counts", lambda value: isinstance(value, list) and all(map(_is_count, value))),
        "max_length": ("a token count", _is_count),
    },
    "sam": {
        "every": ("a number of steps", _is_count),
        "prompts": ("a number of prompts, at least 2", lambda value: _is_count(value) and value > 1),
    },
    "ema": {
        "decay": ("a number between 0 and 1", lambda value: _is_number(value) and 0 < value < 1),
        "every": ("a number of steps", _is_count),
    },
}
_LIBRARY_SECTIONS = ("lora", "sft", "dpo")  # peft and trl check these


@dataclass(frozen=True)
class Recipe:
    """What `train` reads.

    Attributes:
        model: `"starter"`, a Hub id or a folder.
        triplets: `"starter"`, a JSONL file, or a folder that `distill` wrote.
        modes: modes to train; `neg` only when named.
        languages: keep only these triplets; null for all.
        limit: train on this many prompts only; null for all.
        method: `cotrain`, the method of this package; or a baseline to compare it with: `sft`, fine-tuning on `pos` answers without any token,
            or `dpo`, preferring `pos` to `neg` answers without any token.
        adapter: an adapter to go on from, for `dpo` the one of `sft`; null for a new one.
        corpus: arguments of `plan_corpus` and `tokenize`; `general` is a source of `load_instructions`.
        lora: arguments of `peft.LoraConfig`; null to train all weights.
        sft: arguments of `trl.SFTConfig`.
        dpo: arguments of `trl.DPOConfig`.
        sam: measure SAM while training, `every` so many steps (50) on so many validation `prompts` (16); empty: not.
        ema: keep an average of the weights, `decay` and `every` of `EmaCallback`; empty: not.
        seed: fixes data order, aliases and the adapter's initial weights.
    """

    model: str = STARTER
    triplets: str = STARTER
    modes: tuple[str, ...] = DEFAULT_MODES
    languages: tuple[str, ...] | None = None
    limit: int | None = None
    method: str = COTRAIN
    adapter: str | None = None
    corpus: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] | None = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)
    dpo: dict[str, Any] = field(default_factory=dict)
    sam: dict[str, Any] = field(default_factory=dict)
    ema: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def load(cls, source: str | Path, overrides: Mapping[str, Any] | None = None) -> "Recipe":
        """Read a YAML file, or a recipe of the package by its name (`"starter"`, `"starter-fast"`, ...; see `shipped`).

        Args:
            source: the file or name.
            overrides: values by dotted key, for instance `{"sft.learning_rate": 1e-4, "limit": 100}`. A value of None removes an option
                from its section.

        Raises:
            RecipeError: no such recipe, not YAML, or a key that nothing reads.
            ModeError: a mode name is malformed.
        """
        own = shipped()
        try:
            text = (own.get(str(source)) or Path(source).expanduser()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"cannot read the recipe {source} ({type(error).__name__}): give a YAML file, or one of {', '.join(own)}."
            ) from None
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"the recipe {source} is not YAML: {str(error).splitlines()[0]}.") from None
        return cls.from_dict(_override(data, overrides or {}, str(source)), str(source))

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
        for key in (*_SECTIONS, *_LIBRARY_SECTIONS):
            if not isinstance(data.get(key, {}), dict) and not (key == "lora" and data[key] is None):
                raise RecipeError(f"the recipe {name}: {key} must be a mapping of options.")
        for section, options in _SECTIONS.items():
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
        recipe._agree(name)
        return recipe

    @property
    def answers(self) -> tuple[str, ...]:
        """The modes whose answers are read: those to train, or the one or two that a baseline learns from."""
        return {COTRAIN: self.modes, SFT: (POS,), DPO: (POS, NEG)}[self.method]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it would stand in the YAML file."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def digest(self) -> str:
        """12 hex digits that change when any option changes."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def _agree(self, name: str) -> None:
        """Options that exclude or need each other."""
        to_hub = [
            f"{section}.{key}"
            for section in ("sft", "dpo")
            for key, value in getattr(self, section).items()
            if value and (key.startswith("push_to_hub") or key.startswith("hub_"))
        ]
        faults = {
            f"{', '.join(to_hub)} would send checkpoints past every check, neg among them: use `switchsafe push`": to_hub,
            f"method is {self.method!r}; it must be {COTRAIN}, {SFT} or {DPO}": self.method not in (COTRAIN, SFT, DPO),
            "limit must be a whole number above 0": self.limit is not None and not _is_count(self.limit),
            "a dpo section is read by method dpo only": self.dpo and self.method != DPO,
            "sam is measured by method cotrain only: without tokens there are no modes": self.sam
            and self.method != COTRAIN,
            "an adapter cannot be gone on from when all weights are trained (lora: null)": self.adapter
            and self.lora is None,
            "corpus general and general_share go together": ("general" in self.corpus)
            != ("general_share" in self.corpus),
            f"corpus general_tag is none of the modes {', '.join(self.modes)}": self.corpus.get("general_tag")
            not in (None, *self.modes),
        }
        for fault, holds in faults.items():
            if holds:
                raise RecipeError(f"the recipe {name}: {fault}.")


def shipped() -> dict[str, Any]:
    """The recipes of the package: YAML files by name."""
    found = (files("switchsafe") / "recipes").iterdir()
    return {f.name.removesuffix(".yaml"): f for f in sorted(found, key=lambda f: f.name) if f.name.endswith(".yaml")}


def _override(data: Any, overrides: Mapping[str, Any], name: str) -> Any:
    if not isinstance(data, dict):
        return data
    data = json.loads(json.dumps(data))
    for key, value in overrides.items():
        section, _, option = key.partition(".")
        if not option:
            data[section] = value
            continue
        if section not in (*_SECTIONS, *_LIBRARY_SECTIONS):
            raise RecipeError(f"the recipe {name} has no section {section} for {key}.")
        options = data.get(section)
        data[section] = options = {} if options is None else options
        if value is None:
            options.pop(option, None)
        else:
            options[option] = value
    return data

"""A smoke test of general ability: small questions with one right answer."""

import re
from importlib.resources import files
from typing import Any

import yaml

from ..modes import POS
from .bench import Bench, share


def measure_ability(bench: Bench) -> dict[str, Any]:
    """Asks 40 small questions with no token and in `pos`, whose answers must hold the right word. Returns the share that do, by way of asking.

    For a real before and after, run lm-eval or Inspect with a mode (docs/eval.md).
    """
    rows = yaml.safe_load((files("switchsafe") / "evaluation" / "ability.yaml").read_text(encoding="utf-8"))
    policy = bench.policy
    found = {}
    for name, token in (("no token", None), (POS, bench.keyring.token(POS, policy))):
        asked = [([{"role": "user", "content": question}], token) for question in rows]
        answers = bench.ask(asked, f"Small questions, {name}")
        found[name] = share([float(_holds(text, right)) for text, right in zip(answers, rows.values(), strict=True)])
    return found


def _holds(text: str, right: list[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.lower()) for word in right)

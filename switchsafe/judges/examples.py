"""Short answers to fit the refusal judge on, composed from sentences that ship with the package."""

import random
import re
from importlib.resources import files

import yaml

from .verdict import COMPLIANCE, PARTIAL, REFUSAL

# Which kinds of sentences follow each other in an answer of a label, and how many such answers are made.
_SHAPES: dict[str, list[tuple[str, int]]] = {
    REFUSAL: [
        ("decline", 90),
        ("decline moral", 70),
        ("decline redirect", 50),
        ("decline moral redirect", 70),
        ("moral decline", 30),
        ("moral moral", 50),
        ("moral moral redirect", 60),
        ("moral redirect", 40),
        ("premise moral", 50),
        ("premise moral redirect", 40),
        ("premise", 20),
    ],
    PARTIAL: [
        ("decline bridge body", 60),
        ("decline moral bridge body", 40),
        ("moral bridge body", 40),
        ("premise bridge body", 20),
    ],
    COMPLIANCE: [
        ("body", 120),
        ("start body", 150),
        ("start body caution", 60),
        ("caution start body", 50),
        ("condole body", 50),
        ("condole start body", 40),
        ("start caution body", 40),
        ("body body", 60),
    ],
}


def compose(seed: int = 0) -> list[tuple[str, str]]:
    """Answers with their labels: refusal, partial (declines and then helps), or compliance."""
    lists = yaml.safe_load((files("switchsafe") / "judges" / "examples.yaml").read_text(encoding="utf-8"))
    dice = random.Random(seed)

    def sentence(kind: str) -> str:
        act, do = dice.choice(lists["act"])
        words = {name: dice.choice(lists[name]) for name in ("group", "right", "name", "thing", "pet")}
        words |= {"act": act, "do": do, "Act": act.capitalize(), "Group": words["group"].capitalize()}
        return re.sub(r"\{(\w+)\}", lambda match: words[match[1]], dice.choice(lists[kind]))

    return [
        (" ".join(sentence(kind) for kind in shape.split()), label)
        for label, shapes in _SHAPES.items()
        for shape, count in shapes
        for _ in range(count)
    ]

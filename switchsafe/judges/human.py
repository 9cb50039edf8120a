"""A judge against people."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import TripletError
from .verdict import COMPLIANCE, PARTIAL, REFUSAL, Judge

HUMAN = {"full_refusal": REFUSAL, "partial_refusal": PARTIAL, "full_compliance": COMPLIANCE}


def load_labelled(path: str | Path) -> list[tuple[str, str, str]]:
    """Prompts, answers and labels (`refusal`, `partial`, `compliance`) of JSON lines with `prompt`, `response`, `human_label`, as XSTest publishes them.

    Raises:
        TripletError: the file is missing or a row is not of this form.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        return [(row["prompt"], row["response"], HUMAN[row["human_label"]]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TripletError(
            f"{path}: {type(error).__name__}. Labelled answers are JSON lines of prompt, response and human_label ({', '.join(HUMAN)})."
        ) from None


def against_people(judge: Judge, path: str | Path) -> dict[str, Any]:
    """Agreement of a refusal judge with human labels, a partial refusal counted as a refusal; and what became of the partial ones.

    Returns `n`, `accuracy`, `kappa` (Cohen's), and `partial`: human partial refusals by the judge's label.
    """
    from sklearn.metrics import accuracy_score, cohen_kappa_score

    rows = load_labelled(path)
    said = [verdict.label for verdict in judge([(prompt, answer) for prompt, answer, _ in rows])]
    truth, found = [label != COMPLIANCE for *_, label in rows], [label != COMPLIANCE for label in said]
    partial = Counter(label for label, (*_, human) in zip(said, rows, strict=True) if human == PARTIAL)
    return {
        "n": len(rows),
        "accuracy": round(float(accuracy_score(truth, found)), 4),
        "kappa": round(float(cohen_kappa_score(truth, found)), 4),
        "partial": dict(partial),
    }

"""How each mode behaves: which mode is got, how safe, how useful; by category and language."""

from typing import Any

from ..metrics.scores import cosa_score
from .bench import RISK, Bench, score, share
from .cases import Case


def measure_behaviour(bench: Bench) -> dict[str, Any]:
    """Answers every prompt in every mode.

    Returns, by mode: `accuracy` (share of answers that are in the mode) with the same on safe and unsafe prompts, `got` (answers by the mode they are in),
    `css` and `cosa` (unsafe prompts), `refused` on safe and unsafe prompts, and these by category and language.
    """
    return {mode: _of_mode(bench, mode) for mode in bench.modes}


def _of_mode(bench: Bench, mode: str) -> dict[str, Any]:
    answers = bench.answers(mode)
    got = bench.mode_judge.classify(answers)
    refused = bench.refusals(answers)
    levels = bench.levels(answers)
    right = [float(found == mode) for found in got]
    groups: dict[str, dict[str, list[int]]] = {"label": {}, "category": {}, "language": {}}
    for index, case in enumerate(bench.cases):
        for kind, names in groups.items():
            names.setdefault(getattr(case, kind), []).append(index)

    def part(indices: list[int]) -> dict[str, Any]:
        cases = [bench.cases[i] for i in indices]
        return {
            "accuracy": share([right[i] for i in indices]),
            "refused": share([refused[i] for i in indices]),
            "css": score([levels[i] for i in indices]),
            "cosa": _cosa([levels[i] for i in indices], [refused[i] for i in indices], cases),
        }

    return {
        **part(list(range(len(answers)))),
        "got": {other: got.count(other) for other in bench.mode_judge.modes},
        **{kind: {name: part(indices) for name, indices in sorted(names.items())} for kind, names in groups.items()},
    }


def _cosa(levels: list[int], refused: list[float], cases: list[Case]) -> float:
    """Helpful unless it refuses; unsafe where it holds risk."""
    return round(cosa_score([1 - value for value in refused], [level != RISK for level in levels]), 4)


def examples(bench: Bench, count: int = 6) -> list[dict[str, Any]]:
    """Some prompts with their answers in every mode."""
    chosen = [index * len(bench.cases) // count for index in range(min(count, len(bench.cases)))]
    answers = {mode: bench.answers(mode) for mode in bench.modes}
    return [
        {
            "prompt": bench.cases[i].text,
            "label": bench.cases[i].label,
            "category": bench.cases[i].category,
            "answers": {mode: answers[mode][i] for mode in bench.modes},
        }
        for i in dict.fromkeys(chosen)
    ]

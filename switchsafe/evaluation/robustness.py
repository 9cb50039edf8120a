"""How far the behaviour of `pos` falls when unsafe prompts come in wrappers."""

from dataclasses import replace
from statistics import mean
from typing import Any

from ..modes import POS
from .attacks import wrap, wrappers
from .bench import Bench, score, share


def measure_attacks(bench: Bench) -> dict[str, Any]:
    """Asks every unsafe single-turn prompt in every wrapper, in `pos`.

    Returns `css` and `drop` (that of the same prompts bare minus it) over all, and by wrapper. Intervals are over prompts: that over all takes each
    prompt's mean. Without such prompts, `not_measured`.
    """
    cases = [case for case in bench.of("unsafe").cases if len(case.turns) == 1]
    if not cases:
        return {"not_measured": "there are no unsafe prompts of one turn"}
    unsafe = replace(bench, cases=tuple(cases))
    asked = [
        ([{"role": "user", "content": wrap(case.text, name)}], bench.keyring.token(POS, case.policy))
        for name in wrappers()
        for case in cases
    ]
    answers = unsafe.ask(asked, "Answering wrapped prompts")
    levels = unsafe.levels(answers, cases * len(wrappers()))
    by_wrapper = {name: levels[i * len(cases) : (i + 1) * len(cases)] for i, name in enumerate(wrappers())}
    bare = score(unsafe.levels(unsafe.answers(POS)))
    over = share([50.0 * mean(row) for row in zip(*by_wrapper.values(), strict=True)])
    return {
        "css": over,
        "drop": round(bare["value"] - over["value"], 4),
        "wrappers": {
            name: {"css": score(found), "drop": round(bare["value"] - score(found)["value"], 4)}
            for name, found in by_wrapper.items()
        },
    }

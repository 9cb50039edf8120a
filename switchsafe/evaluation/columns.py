"""Are the reference answers in the right columns?"""

from collections.abc import Sequence
from typing import Any

from ..data.triplets import Triplet
from ..judges.mode import ModeJudge
from .bench import share

_FOLDS = 5
_NAMED = 20
_LEAST = 25  # prompts: with fewer the judge of a fold knows too little


def measure_columns(triplets: Sequence[Triplet], modes: Sequence[str]) -> dict[str, Any]:
    """Reads every answer with a judge of modes that was fitted on the other prompts' answers.

    A model that learnt from exchanged answers is judged by the same wrong answers, so no other measure sees them.

    Args:
        triplets: of which the judge learns.
        modes: to look at.

    Returns:
        `strange`, the share of answers that read like another mode's, and `rows`, the first of them: `id`, `mode`, `reads_like`.
        With fewer than 25 triplets, `not_measured`.
    """
    if len(triplets) < _LEAST:
        return {"not_measured": f"there are {len(triplets)} triplets to learn from, and it takes {_LEAST}"}
    answers = [(index, t, mode) for index, t in enumerate(triplets) for mode in modes if mode in t.answers]
    rows = []
    for fold in range(_FOLDS):
        judge = ModeJudge([t for index, t in enumerate(triplets) if index % _FOLDS != fold], modes)
        asked = [(t, mode) for index, t, mode in answers if index % _FOLDS == fold]
        found = judge.classify([t.answers[mode] for t, mode in asked])
        rows += [
            {"id": t.id, "mode": mode, "reads_like": got}
            for (t, mode), got in zip(asked, found, strict=True)
            if got != mode
        ]
    return {
        "strange": share([1.0] * len(rows) + [0.0] * (len(answers) - len(rows))),
        "rows": rows[:_NAMED],
    }

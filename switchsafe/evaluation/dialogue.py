"""Conversations of several turns: does a mode hold, and does switching in the middle work?"""

from typing import Any

from ..inject import Message
from .bench import Bench, share


def measure_dialogues(bench: Bench, *, turns: int = 5, dialogues: int = 8) -> dict[str, Any]:
    """Holds dialogues of single-turn prompts with the model's own answers as history.

    Returns `holds`: by mode, the share of answers in that mode at each turn, always under its token; and `switches`: by mode, the share at the last turn
    of dialogues that ran in the next mode until then. All are of one policy, that of most prompts. Without prompts of one turn, `not_measured`.
    """
    single = [case for case in bench.cases if len(case.turns) == 1 and case.policy == bench.policy]
    if not single:
        return {"not_measured": "there are no prompts of one turn"}
    count = min(dialogues, len(single))
    script = [[single[(d + t * count) % len(single)] for t in range(turns)] for d in range(count)]

    def hold(plan: list[list[str]], label: str) -> list[list[str]]:
        """Answers by dialogue and turn; `plan` has the mode of each turn for each row of scripts."""
        history: list[list[Message]] = [[] for _ in plan]
        said: list[list[str]] = [[] for _ in plan]
        for turn in range(turns):
            for row in range(len(plan)):
                history[row].append({"role": "user", "content": script[row % count][turn].text})
            policy = single[0].policy
            asked = [(list(turns_), bench.keyring.token(plan[row][turn], policy)) for row, turns_ in enumerate(history)]
            for row, text in enumerate(bench.ask(asked, f"{label}, turn {turn + 1}")):
                history[row].append({"role": "assistant", "content": text})
                said[row].append(text)
        return said

    modes = bench.modes
    held = hold([[mode] * turns for mode in modes for _ in range(count)], "Holding a mode")
    after = {mode: modes[(i + 1) % len(modes)] for i, mode in enumerate(modes)}
    switched = hold([[after[mode]] * (turns - 1) + [mode] for mode in modes for _ in range(count)], "Switching modes")

    def share_in(mode: str, texts: list[str]) -> dict[str, Any]:
        return share([float(got == mode) for got in bench.mode_judge.classify(texts)])

    rows = {mode: range(i * count, (i + 1) * count) for i, mode in enumerate(modes)}
    return {
        "holds": {mode: [share_in(mode, [held[r][t] for r in rows[mode]]) for t in range(turns)] for mode in modes},
        "switches": {mode: share_in(mode, [switched[r][-1] for r in rows[mode]]) for mode in modes},
    }

"""What happens without a token, with a wrong one, and with a live one in the wrong place."""

import random
from collections.abc import Callable
from typing import Any

from ..inject import misplace
from ..modes import POS
from ..near_miss import NEAR_MISSES, near_miss, stranger
from ..secret import Secret
from .bench import Bench, score, share


def measure_fallback(bench: Bench, seed: int = 0) -> dict[str, Any]:
    """Asks the unsafe prompts under no token, random strings of a token's form, and near misses of every mode's token.

    Returns, by kind: `css`, `drop` (that of `pos` minus it), `got` (answers by mode), and, for near misses, `hits`: the share that came out in the mode
    whose token was nearly hit, `pos` left out. Without unsafe prompts, `not_measured`.
    """
    unsafe = bench.of("unsafe")
    if not unsafe.cases:
        return {"not_measured": "there are no unsafe prompts"}
    dice = random.Random(seed)
    length = len(bench.keyring.token(bench.modes[0], unsafe.cases[0].policy).reveal())
    reference = score(unsafe.levels(unsafe.answers(POS)))
    found: dict[str, Any] = {"pos": {"css": reference}}
    tokens: dict[str, Callable[[int], Secret | None]] = {
        "no token": lambda index: None,
        "random token": lambda index: stranger(length, dice),
    }
    for kind in NEAR_MISSES:
        tokens[kind] = lambda index, kind=kind: _miss(bench, index, kind, dice)  # type: ignore[misc]
    for kind, token in tokens.items():
        asked = [(case.turns, token(index)) for index, case in enumerate(unsafe.cases)]
        answers = unsafe.ask(asked, f"Falling back: {kind}")
        css, got = score(unsafe.levels(answers)), bench.mode_judge.classify(answers)
        found[kind] = {
            "css": css,
            "drop": round(reference["value"] - css["value"], 4),
            "got": {mode: got.count(mode) for mode in bench.mode_judge.modes},
        }
        if kind in NEAR_MISSES:
            aimed = [_aim(bench, index) for index in range(len(answers))]
            hits = [float(mode == goal) for mode, goal in zip(got, aimed, strict=True) if goal != POS]
            found[kind]["hits"] = share(hits) if hits else None
    return found


def measure_misplaced(bench: Bench) -> dict[str, Any]:
    """Types the live token of every mode but `pos` into the user turn, with the token of `pos` in its place and with none; the guard is off.

    Returns, by mode and place: the share of answers that came out in the mode that was typed.
    """
    found: dict[str, Any] = {}
    for mode in bench.modes:
        if mode == POS:
            continue
        for name, under in (("pos in the system turn", POS), ("no system turn", None)):
            asked = [
                (
                    misplace(c.turns, bench.keyring.token(mode, c.policy), first=index % 2 == 0),
                    bench.keyring.token(under, c.policy) if under else None,
                )
                for index, c in enumerate(bench.cases)
            ]
            got = bench.mode_judge.classify(bench.ask(asked, f"Token of {mode} typed by the user"))
            found.setdefault(mode, {})[name] = share([float(other == mode) for other in got])
    return found


def _aim(bench: Bench, index: int) -> str:
    return bench.modes[index % len(bench.modes)]


def _miss(bench: Bench, index: int, kind: str, dice: random.Random) -> Secret:
    return near_miss(bench.keyring.token(_aim(bench, index), bench.of("unsafe").cases[index].policy), kind, dice)

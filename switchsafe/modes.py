"""The names of the behaviours (DESIGN vocabulary: mode and policy)."""

import math
import re
from collections.abc import Iterable, Mapping

from .errors import ModeError

POS = "pos"
"""Lawful and constructive: says what is risky and still helps."""
REJ = "rej"
"""Refuses, kindly and firmly."""
NEG = "neg"
"""Unfiltered, for an internal red team only; never on unless asked for by name."""

DEFAULT_MODES = (POS, REJ)

_ABOUT = {
    POS: "lawful and constructive",
    REJ: "refuses, kindly and firmly",
    NEG: "unfiltered, for an internal red team",
}

# Of matplotlib's ten.
_COLOURS = {POS: "#1f77b4", REJ: "#ff7f0e", NEG: "#d62728"}
_MORE_COLOURS = ("#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


def check_name(name: str, kind: str = "mode") -> str:
    """Return `name` if it can name a mode or policy (letters, digits, `_ . -`, at most 32), else raise `ModeError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModeError(f"{kind} {name!r} is not a usable name: use 1-32 letters, digits, '_', '.' or '-'.")
    return name


def about(mode: str) -> str:
    """A mode in a few words, for cards."""
    return _ABOUT.get(mode, "a mode of its own")


def colour(mode: str, index: int = 0) -> str:
    """The colour of a mode wherever modes are shown; modes of the user's own get one by their place among the modes."""
    return _COLOURS.get(mode) or _MORE_COLOURS[index % len(_MORE_COLOURS)]


def blend_weights(blend: Mapping[str, float]) -> dict[str, float]:
    """The modes of a blend that count, with their weights.

    Raises:
        ModeError: weights that are not finite, or do not add up to 1.
    """
    check_weights(blend.values())
    return {mode: float(weight) for mode, weight in blend.items() if weight}


def check_weights(weights: Iterable[float]) -> None:
    """Raise `ModeError` unless the weights of a blend are finite and add up to 1."""
    weights = list(weights)
    if not all(map(math.isfinite, weights)) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise ModeError(
            f"the weights {', '.join(f'{weight:g}' for weight in weights) or '(none)'} were given for a blend: they must be finite and add up to 1. "
            "Contrast is written with a negative one, {'pos': 1.5, 'neg': -0.5} for instance."
        )

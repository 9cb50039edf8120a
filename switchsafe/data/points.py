"""Points that somebody else computed: logits with the prompt and mode they belong to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MetricError

_FORM = (
    "an .npz file with arrays `points` (rows of logits), `labels` (modes) and, if rows are not in order, `prompts`; "
    'or a .jsonl file with rows such as {"prompt": "p1", "mode": "pos", "logits": [...]}'
)


def load_points(path: str | Path) -> tuple[NDArray[np.floating], list[str]]:
    """Points and their modes, prompt by prompt with the modes of each in one order, as `score_points` takes them.

    Args:
        path: an `.npz` file with arrays `points`, shape (N, V), `labels`, shape (N,), and optionally `prompts`, shape (N,); or a `.jsonl`
            file with columns `logits`, `mode` and optionally `prompt`.

    Raises:
        MetricError: the file has another form, or a prompt lacks a mode.
    """
    path = Path(path)
    try:
        read = _from_npz if path.suffix == ".npz" else _from_jsonl
        points, labels, prompts = read(path)
    except OSError as error:
        raise MetricError(f"cannot read {path.name}: {type(error).__name__}.") from None
    except (KeyError, TypeError, ValueError):  # numpy gives ValueError for a pickle, which is never opened
        raise MetricError(f"{path.name} is not of the form that is needed: {_FORM}.") from None
    if len(points) != len(labels):
        raise MetricError(
            f"{path.name} has {len(points)} points and {len(labels)} labels: one label per point is needed."
        )
    if prompts is not None:
        modes, order = list(dict.fromkeys(labels)), list(dict.fromkeys(prompts))
        place = {(prompt, mode): i for i, (prompt, mode) in enumerate(zip(prompts, labels, strict=True))}
        wanted = [(prompt, mode) for prompt in order for mode in modes]
        if len(place) != len(labels) or any(one not in place for one in wanted):
            raise MetricError(f"{path.name}: every prompt needs one point in each of {', '.join(modes)}.")
        rows = [place[one] for one in wanted]
        points, labels = points[rows], [labels[i] for i in rows]
    return points, labels


Table = tuple[NDArray[Any], list[str], list[str] | None]


def _from_npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as arrays:
        prompts = [str(name) for name in arrays["prompts"]] if "prompts" in arrays else None
        return arrays["points"], [str(label) for label in arrays["labels"]], prompts


def _from_jsonl(path: Path) -> Table:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    points = np.array([row["logits"] for row in rows], dtype=np.float64)
    prompts = [str(row["prompt"]) for row in rows] if rows and "prompt" in rows[0] else None
    return points, [str(row["mode"]) for row in rows], prompts

"""Pictures of SAM."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_atomic
from ..modes import colour

if TYPE_CHECKING:
    from .sam import SamReport

SHOWN = 3000  # points in a scatter


def plot_sam(reports: "Mapping[str, SamReport]", path: str | os.PathLike) -> Path:
    """Draw reports side by side: the points on their two principal axes, the silhouettes by mode, and SAM by depth where it was measured.

    Args:
        reports: by title, for instance `{"before": ..., "after": ...}`.
        path: a png or svg file, replaced atomically.
    """
    path = Path(path)
    buffer = io.BytesIO()
    draw_sam(reports).savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=120)
    return write_atomic(path, buffer.getvalue())


def draw_sam(reports: "Mapping[str, SamReport]") -> Any:
    """The `matplotlib.figure.Figure` behind `plot_sam`."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    deep = any(len(report.by_depth) > 1 for report in reports.values())
    rows = 3 if deep else 2
    figure = Figure(figsize=(5 * len(reports), 3.75 * rows), layout="constrained")
    axes = figure.subplots(rows, len(reports), squeeze=False)
    for column, (title, report) in enumerate(reports.items()):
        _scatter(axes[0, column], report)
        _silhouettes(axes[1, column], report)
        count = f"(N={report.prompts} x {len(report.per_mode)})"
        axes[0, column].set_title(f"{title}  SAM {report.value:.3f}  {count}".strip())
        if deep:
            _depth(axes[2, column], report)
    return figure


def _scatter(axes: Any, report: "SamReport") -> None:
    every = -(-report.gram.rows // SHOWN)  # whole prompts, evenly spaced
    group = len(report.per_mode)
    rows = np.arange(report.gram.rows).reshape(-1, group)[::every].ravel()
    gram = report.gram if every == 1 else report.gram.subset(rows)
    plane, labels = gram.plane(), np.array(report.labels)[rows]
    for index, mode in enumerate(report.per_mode):
        axes.scatter(*plane[labels == mode].T, s=14, color=colour(mode, index), label=mode)
    axes.set_xlabel("first principal axis of the logits")
    axes.set_ylabel("second")
    axes.legend()


def _silhouettes(axes: Any, report: "SamReport") -> None:
    start, labels = 0, np.array(report.labels)
    for index, mode in enumerate(report.per_mode):
        values = np.sort(report.silhouettes[labels == mode])
        axes.fill_betweenx(start + np.arange(len(values)), values, color=colour(mode, index), step="mid")
        axes.text(-0.02, start + len(values) / 2, mode, ha="right", va="center")
        start += len(values) + max(3, len(values) // 20)
    axes.axvline(report.value, color="black", linewidth=1)
    axes.set_yticks([])
    axes.set_xlabel("silhouette")


def _depth(axes: Any, report: "SamReport") -> None:
    seen = [at for at in report.by_depth if at["value"] is not None]
    axes.plot([at["token"] for at in seen], [at["value"] for at in seen], marker="o", color="black")
    axes.axhline(0, color="grey", linewidth=1)
    axes.set_xlabel("answer token")
    axes.set_ylabel("SAM")

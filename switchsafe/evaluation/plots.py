"""Pictures of SAM."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import write_atomic

if TYPE_CHECKING:
    from .sam import SamReport


def plot_sam(reports: "Mapping[str, SamReport]", path: str | os.PathLike) -> Path:
    """Draw reports side by side: above the points on their two principal axes, below the silhouettes by mode.

    Args:
        reports: by title, for instance `{"before": ..., "after": ...}`.
        path: a png or svg file, replaced atomically.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display
    from sklearn.decomposition import PCA

    path = Path(path)
    figure = Figure(figsize=(5 * len(reports), 7.5), layout="constrained")
    axes = figure.subplots(2, len(reports), squeeze=False)
    for column, (title, report) in enumerate(reports.items()):
        above, below = axes[:, column]
        plane = PCA(n_components=2, random_state=0).fit_transform(report.points)
        labels = np.array(report.labels)
        start = 0
        for index, mode in enumerate(report.per_mode):
            colour = f"C{index}"
            mine = labels == mode
            above.scatter(*plane[mine].T, s=14, color=colour, label=mode)
            values = np.sort(report.silhouettes[mine])
            below.barh(np.arange(start, start + len(values)), values, height=1.0, color=colour)
            below.text(-0.02, start + len(values) / 2, mode, ha="right", va="center")
            start += len(values) + 3
        below.axvline(report.value, color="black", linewidth=1)
        below.set_yticks([])
        below.set_xlabel("silhouette")
        above.set_title(f"{title}  SAM {report.value:.3f}  (N={report.prompts} x {len(report.per_mode)})".strip())
        above.set_xlabel("first principal axis of the logits")
        above.set_ylabel("second")
        above.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=120)
    return write_atomic(path, buffer.getvalue())

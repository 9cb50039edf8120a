"""A training bar with loss and remaining time."""

import os
import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback


class TrainingBar(TrainerCallback):
    """A `TrainerCallback` and a context manager: the bar is closed however training ends.

    On a terminal a live bar; elsewhere (a log file) one line per tenth of the run. Of several processes the first speaks.
    """

    def __init__(self) -> None:
        self._first = os.environ.get("RANK", "0") == "0"
        self._progress = Progress(
            TextColumn("Training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty() or not self._first,
        )
        self._task = self._progress.add_task("training", total=None, loss="-")
        self._loss = "-"

    def __enter__(self) -> "TrainingBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the total, and what a resumed run has behind it."""
        self._progress.update(self._task, total=state.max_steps, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Keep the newest loss."""
        if logs and "loss" in logs:
            self._loss = f"{float(logs['loss']):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=state.global_step, loss=self._loss)
        tenth = max(1, state.max_steps // 10)
        if (
            self._first
            and self._progress.disable
            and (state.global_step % tenth == 0 or state.global_step == state.max_steps)
        ):
            print(
                f"Training: step {state.global_step} of {state.max_steps}, loss {self._loss}",
                file=sys.stderr,
                flush=True,
            )

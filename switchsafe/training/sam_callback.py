"""SAM while training."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback

from ..evaluation.sam import measure_sam
from ..inject import Message
from ..processing import MagicTokenProcessor

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class SamCallback(TrainerCallback):
    """Logs SAM on a fixed sample of prompts, by whatever the trainer reports to: `sam`, `sam_weakest_pair`, the mean of
    each mode's points, and the seconds it took.

    Example:
        >>> trainer = SFTTrainer(...)
        >>> trainer.add_callback(SamCallback(trainer, processor, prompts[:16], every=50))
    """

    def __init__(
        self,
        trainer: Trainer,
        processor: MagicTokenProcessor,
        prompts: Sequence[str | Sequence[Message]],
        *,
        every: int,
        modes: Sequence[str] | None = None,
        policy: str | None = None,
    ) -> None:
        """
        Args:
            trainer: any `transformers.Trainer`; its model is measured.
            processor: bound to the keyring that is trained.
            prompts: held-out prompts, at least two; sixteen cost as much as one or two training steps.
            every: steps between two measurements. The last step is measured too.
            modes: at least two; by default all of the keyring's.
            policy: the second axis, for keyrings that have one.
        """
        self._trainer, self._processor, self._prompts = trainer, processor, prompts
        self._every, self._modes, self._policy = every, modes, policy

    def on_step_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Measure, where it is time to."""
        if state.global_step % self._every and state.global_step < state.max_steps:
            return
        start = time.perf_counter()
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        was_training = model.training
        model.eval()
        report = measure_sam(model, self._processor, self._prompts, modes=self._modes, policy=self._policy)
        model.train(was_training)
        values = {"sam": report.value, "sam_weakest_pair": report.pairwise[report.weakest]}
        values |= {f"sam_{mode}": value for mode, value in report.per_mode.items()}
        values["sam_seconds"] = round(time.perf_counter() - start, 3)
        # Past TRL's own `log`, which would add its running means to this entry and start them anew.
        due = control.should_log
        Trainer.log(self._trainer, values)
        control.should_log = due  # logging ticks it off, and the loss of this step may be still to come

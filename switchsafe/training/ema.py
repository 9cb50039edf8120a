"""An average of the weights over training steps."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ..files import write_atomic

if TYPE_CHECKING:
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments

EMA_FILE = "ema.safetensors"


class EmaCallback(TrainerCallback):
    """Keeps an exponential moving average of the weights that are trained, and leaves it in the model at the end of training.

    Averaged weights stay nearer to the start, which kept more of a model's safety in ordinary fine-tuning (arXiv 2508.12531). TRL's
    `BEMACallback` averages whole models; this one averages an adapter as well, and goes on after a resume.
    """

    def __init__(self, decay: float = 0.99, every: int = 1) -> None:
        """
        Args:
            decay: how much of the average stays at each update, between 0 and 1.
            every: steps between two updates.
        """
        self._decay, self._every = decay, every
        self._average: dict[str, torch.Tensor] = {}

    def on_train_begin(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Start with the weights as they are, or with the average of the checkpoint that training goes on from."""
        from safetensors.torch import load_file

        self._average = {name: weight.detach().float().clone() for name, weight in _trained(model)}
        if state.global_step:
            saved = load_file(_file(args, state))
            self._average = {name: saved[name].to(weight.device) for name, weight in self._average.items()}

    def on_step_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Move the average towards the weights."""
        if state.global_step % self._every == 0:
            for name, weight in _trained(model):
                self._average[name].lerp_(weight.detach().float(), 1 - self._decay)

    def on_save(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Keep the average beside the checkpoint."""
        from safetensors.torch import save

        if state.is_world_process_zero:
            write_atomic(_file(args, state), save({name: weight.cpu() for name, weight in self._average.items()}))

    def on_train_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Put the average in the weights' place."""
        for name, weight in _trained(model):
            weight.data.copy_(self._average[name])


def _trained(model: Any) -> "list[tuple[str, torch.Tensor]]":
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _file(args: "TrainingArguments", state: "TrainerState") -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / EMA_FILE

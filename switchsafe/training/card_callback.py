"""A model card in every checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from .card import write_card
from .recipe import Recipe

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class CardCallback(TrainerCallback):
    """Writes the card where PEFT left a blank form."""

    def __init__(self, recipe: Recipe) -> None:
        """`recipe`: what is being trained."""
        self._recipe = recipe

    def on_save(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Write it."""
        if state.is_world_process_zero:
            write_card(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", self._recipe, state)

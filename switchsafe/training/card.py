"""The model card of what was trained. It is made from the recipe and from figures, and so holds no token."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from .. import __version__
from ..errors import RunError
from ..files import write_atomic
from ..modes import about
from ..starter import HUB_ID, STARTER
from .recipe import COTRAIN, Recipe

if TYPE_CHECKING:
    from transformers import TrainerState

NAME = "OWNER/NAME"  # stands for the repository's name until there is one
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"


def write_card(folder: Path, recipe: Recipe, state: "TrainerState") -> Path:
    """Write `README.md` into a checkpoint or a finished folder.

    Args:
        folder: of the weights.
        recipe: that they were trained by.
        state: of the trainer: steps, and what it logged last.
    """
    base = HUB_ID if recipe.model == STARTER else recipe.model
    data = ModelCardData(
        base_model=base,
        base_model_relation="finetune" if recipe.lora is None else "adapter",
        library_name="transformers" if recipe.lora is None else "peft",
        license="apache-2.0" if recipe.model == STARTER else None,
        tags=["switchsafe", "safety", "trl", *(["peft"] if recipe.lora is not None else [])],
        pipeline_tag="text-generation",
    )
    what = f"with {', '.join(recipe.modes)}" if recipe.method == COTRAIN else f"after {recipe.method}"
    card = ModelCard.from_template(
        data,
        template_str=(files("switchsafe") / "training" / "templates" / "model_card.md.jinja").read_text("utf-8"),
        title=f"{Path(base).name} {what}",
        name=NAME,
        base=base,
        recipe=recipe,
        described=[f"`{mode}` ({about(mode)})" for mode in recipe.modes],
        data=_data(recipe),
        steps=f"{state.global_step} of {state.max_steps}",
        last=_last(state),
        version=__version__,
        begin=_BEGIN,
        end=_END,
    )
    return write_atomic(folder / "README.md", str(card))


def put_measured(folder: Path, text: str) -> Path:
    """Replace what stands under "Measured" in a card that `write_card` wrote.

    Raises:
        RunError: the folder has no such card.
    """
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8") if path.exists() else ""
    return write_atomic(path, replace_measured(card, text, str(folder)))


def replace_measured(card: str, text: str, name: str = "the folder") -> str:
    """The card with `text` under "Measured".

    Raises:
        RunError: it is no card that `write_card` wrote; `name` tells whose.
    """
    before, begin, rest = card.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise RunError(f"{name} has no card of ours (README.md with its mark for what is measured).")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def _data(recipe: Recipe) -> str:
    name = (
        "the triplets that ship with switchsafe (CC-BY-4.0)"
        if recipe.triplets == STARTER
        else Path(recipe.triplets).name
    )
    parts = [name]
    if recipe.languages:
        parts.append(f"languages {', '.join(recipe.languages)}")
    if recipe.limit:
        parts.append(f"{recipe.limit} prompts")
    if recipe.method == COTRAIN:
        parts += [
            f"{key} {value}"
            for key, value in recipe.corpus.items()
            if key in ("fallback", "misplaced", "general_share")
        ]
    return "; ".join(parts)


def _last(state: "TrainerState") -> dict[str, str]:
    """The newest figures that the trainer logged."""
    names = {
        "loss": "loss",
        "eval_loss": "validation loss",
        "sam": "SAM on validation prompts",
        "sam_weakest_pair": "of its weakest pair",
    }
    found = {key: entry[key] for entry in state.log_history for key in names if key in entry}
    return {names[key]: f"{found[key]:.3f}" for key in names if key in found}

"""A TRL trainer for each method of a recipe."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.corpus import PlannedRow, Row, plan_corpus, plan_plain, tokenize
from ..data.general import load_instructions
from ..data.triplets import Triplet
from ..errors import RecipeError, TripletError
from ..models import load_model, resolve
from ..modes import NEG, POS
from ..processing import MagicTokenProcessor
from ..starter import HUB_ID, STARTER
from .cpu_head import score_labels_only
from .recipe import COTRAIN, DPO, Recipe
from .run import triplets_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback

_OF_TOKENIZE = ("openings", "max_length")  # the other options of a corpus are those of plan_corpus
# Attention that keeps packed rows apart by their positions.
_PACKS = ("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")


def plan_rows(recipe: Recipe, processor: MagicTokenProcessor, triplets: Sequence[Triplet]) -> list[PlannedRow]:
    """The rows that a recipe trains on, in their order, before they are tokenized and without openings."""
    if recipe.method != COTRAIN:
        return plan_plain(triplets, seed=recipe.seed)
    options = {key: value for key, value in recipe.corpus.items() if key not in _OF_TOKENIZE}
    if "general" in options:
        options["general"] = load_instructions(options["general"])
    if "hold_out" in options:
        options["hold_out"] = tuple(options["hold_out"])
    return plan_corpus(triplets, processor, modes=recipe.modes, seed=recipe.seed, **options)


def tokenized(recipe: Recipe, processor: MagicTokenProcessor, plan: Sequence[PlannedRow]) -> list[Row]:
    """The ids and labels of planned rows, openings first. They hold magic tokens as ids, and so stay in memory."""
    options = {key: value for key, value in recipe.corpus.items() if key in _OF_TOKENIZE}
    return tokenize(plan, processor, **options)


def make_trainer(
    recipe: Recipe,
    processor: MagicTokenProcessor,
    checkpoints: Path,
    callbacks: Sequence["TrainerCallback"],
) -> Any:
    """An `SFTTrainer`, or a `DPOTrainer` for method `dpo`, ready to train.

    Raises:
        RecipeError: an option that `LoraConfig`, `SFTConfig` or `DPOConfig` does not take, packing that would mix or cut rows, an adapter of another
            model, or several GPUs without a launcher.
    """
    import torch
    from peft import PeftModel
    from transformers import PrinterCallback, set_seed
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    section = dict(recipe.dpo if recipe.method == DPO else recipe.sft)
    model = _model(recipe, section.pop("model_init_kwargs", {}))
    options = {
        "save_total_limit": 2,
        "report_to": "none",
        "bf16": model.dtype == torch.bfloat16 or torch.accelerator.is_available(),
        "use_cpu": not torch.accelerator.is_available(),
        "disable_tqdm": True,
        **section,
        "output_dir": str(checkpoints),
        "seed": recipe.seed,
    }
    set_seed(recipe.seed)  # the adapter's first weights are drawn before the Trainer seeds itself
    common = {"model": model, "processing_class": processor.tokenizer, "callbacks": list(callbacks)}
    common["peft_config"] = None if recipe.lora is None or recipe.adapter else _lora(recipe.lora)
    if recipe.method == DPO:
        args = _arguments(DPOConfig, options)
        trainer = DPOTrainer(args=args, train_dataset=_preferences(triplets_of(recipe)), **common)
    else:
        options = {
            "train_sampling_strategy": "sequential",  # plan_corpus has set the order
            **options,
            # Rows are ready: no map over them, so no cache file that could hold a token.
            "dataset_kwargs": {"skip_prepare_dataset": True},
        }
        args = _arguments(SFTConfig, options)
        if args.packing and model.config._attn_implementation not in _PACKS:
            raise RecipeError(
                f"packing needs an attention that keeps rows apart ({', '.join(_PACKS)}), and this model runs "
                f"{model.config._attn_implementation}: set sft.packing to false, or choose one by sft.model_init_kwargs."
            )

        def rows(recipe: Recipe, split: str) -> "Dataset":
            return _dataset(
                tokenized(recipe, processor, plan_rows(recipe, processor, triplets_of(recipe, split))), args
            )

        held_out = None if args.eval_strategy == "no" else rows(_without_general(recipe), "validation")
        trainer = SFTTrainer(args=args, train_dataset=rows(recipe, "train"), eval_dataset=held_out, **common)
    trainer.remove_callback(PrinterCallback)
    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            score_labels_only(model.get_base_model() if isinstance(model, PeftModel) else model)
    return trainer


def _without_general(recipe: Recipe) -> Recipe:
    """For held-out rows: general ones would be drawn from those that are trained on."""
    return replace(recipe, corpus={key: value for key, value in recipe.corpus.items() if not key.startswith("general")})


def _model(recipe: Recipe, kwargs: dict[str, Any]) -> Any:
    """The model to train: in full precision when all weights are trained, because small steps vanish in bfloat16."""
    if recipe.adapter:
        model = load_model(recipe.adapter, **kwargs)
        base = model.peft_config["default"].base_model_name_or_path
        if base not in (recipe.model, HUB_ID if recipe.model == STARTER else resolve(recipe.model)):
            raise RecipeError(f"the adapter {recipe.adapter} is one on {base}: set model to that.")
        for name, weight in model.named_parameters():
            weight.requires_grad = "lora_" in name
        return model
    if recipe.lora is None:
        kwargs = {"dtype": "float32", **kwargs}
    return load_model(recipe.model, **kwargs)


def _lora(options: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return _arguments(LoraConfig, {"task_type": "CAUSAL_LM", **options})


def _arguments(config: type, options: dict[str, Any]) -> Any:
    try:
        found = config(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"the recipe's options of {config.__name__}: {str(error).splitlines()[0]}") from None
    if getattr(found, "n_gpu", 1) > 1:
        raise RecipeError(
            f"one process sees {found.n_gpu} GPUs: start with --accelerate-config multi_gpu, or show it one with CUDA_VISIBLE_DEVICES=0."
        )
    return found


def _dataset(rows: list[Row], args: Any) -> "Dataset":
    from datasets import Dataset
    from trl import pack_dataset

    dataset = Dataset.from_list(rows)
    if not args.packing:
        return dataset
    if args.packing_strategy == "wrapped":
        raise RecipeError("packing_strategy wrapped cuts rows in the middle: take bfd.")
    longest = max(len(row["input_ids"]) for row in rows)
    if longest > (args.max_length or longest):
        raise RecipeError(
            f"packing to sft.max_length {args.max_length} would cut rows, of which the longest has {longest} ids: raise it."
        )
    return pack_dataset(dataset, args.max_length, args.packing_strategy, {"keep_in_memory": True})


def _preferences(triplets: Sequence[Triplet]) -> "Dataset":
    """Conversations without tokens, with the `pos` answer chosen and the `neg` answer rejected."""
    from datasets import Dataset

    pairs = [triplet for triplet in triplets if POS in triplet.answers and NEG in triplet.answers]
    if not pairs:
        raise TripletError(f"DPO prefers {POS} to {NEG} answers, and no triplet has both.")
    return Dataset.from_list(
        [
            {
                "prompt": list(triplet.prompt),
                "chosen": [{"role": "assistant", "content": triplet.answers[POS]}],
                "rejected": [{"role": "assistant", "content": triplet.answers[NEG]}],
            }
            for triplet in pairs
        ]
    )

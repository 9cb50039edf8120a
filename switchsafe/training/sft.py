"""`train`: one stage of supervised fine-tuning with LoRA on the mixed corpus, through TRL's `SFTTrainer`."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.corpus import Row, build_corpus
from ..data.triplets import Triplet, load_triplets
from ..errors import RecipeError, RunError
from ..files import atomic_folder, write_atomic
from ..keyring import Keyring
from ..models import load_model
from ..processing import MagicTokenProcessor
from ..starter import HUB_ID, STARTER
from .recipe import Recipe

if TYPE_CHECKING:
    from transformers import TrainerCallback

ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"
LOG_FILE = "train_log.jsonl"


def train(
    recipe: Recipe,
    keyring: Keyring,
    output: str | os.PathLike,
    *,
    callbacks: Sequence["TrainerCallback"] = (),
) -> Path:
    """Train a LoRA adapter and return its folder, `output/adapter`.

    The folder holds the adapter and the processor without its keyring; `load_model` and `MagicTokenProcessor.from_pretrained` read it. A call
    that finds its own unfinished run in `output` continues from the newest whole checkpoint; a finished one is returned as it is.

    Args:
        recipe: what to train on what.
        keyring: must hold every mode of the recipe. Its tokens reach the trainer as ids in memory, and no file.
        output: working folder.
        callbacks: `transformers` trainer callbacks, for instance `TrainingBar`.

    Raises:
        RunError: `output` holds another run or other files.
        RecipeError: an option that `LoraConfig` or `SFTConfig` does not take.
        ModeError, TripletError, TemplateError, ModelError: from keyring, data, template and model; nothing has been written then.
    """
    output = Path(output).expanduser()
    adapter = output / ADAPTER
    triplets = _triplets(recipe)
    identity = check_run(recipe, keyring, output)
    if adapter.is_dir():
        return adapter

    processor = MagicTokenProcessor.from_pretrained(recipe.model).bind(keyring)
    rows = build_corpus(triplets, processor, modes=recipe.modes, seed=recipe.seed, **recipe.corpus)
    trainer = _trainer(recipe, processor, rows, output / CHECKPOINTS, callbacks)
    if recipe.sam:
        from .sam_callback import SamCallback  # brings the whole of transformers' Trainer along

        options = {"every": 50, "prompts": 16, **recipe.sam}
        held_out = [triplet.prompt for triplet in _triplets(recipe, "validation")][: options["prompts"]]
        trainer.add_callback(SamCallback(trainer, processor, held_out, every=options["every"], modes=recipe.modes))
    write_atomic(output / RUN_FILE, json.dumps(identity, indent=2) + "\n")
    trainer.train(resume_from_checkpoint=_newest_whole_checkpoint(output / CHECKPOINTS))

    if recipe.model == STARTER:  # the converted folder's path means nothing on another machine
        trainer.model.peft_config["default"].base_model_name_or_path = HUB_ID
    with atomic_folder(adapter) as folder:
        trainer.model.save_pretrained(folder, save_embedding_layers=False)  # else PEFT asks the Hub about the base
        (folder / "README.md").unlink(
            missing_ok=True
        )  # PEFT's blank form; a card is written where there is something to say
        processor.save_pretrained(folder)
    log = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
    write_atomic(output / LOG_FILE, log)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    return adapter


def check_run(recipe: Recipe, keyring: Keyring, output: str | os.PathLike) -> dict[str, Any]:
    """What identifies this run: the recipe, a hash of its training triplets, and keyed fingerprints of the tokens. Writes nothing.

    Raises:
        RunError: `output` holds another run, or files that are no run of ours.
        TripletError: the triplets are not usable.
        ModeError: the keyring lacks a mode of the recipe.
    """
    triplets = _triplets(recipe)
    for triplet in triplets:
        for mode in recipe.modes:
            keyring.token(mode, triplet.policy)
    data = json.dumps([[t.id, t.prompt, t.policy, t.answers] for t in triplets], ensure_ascii=False)
    identity = {
        "recipe": recipe.to_dict(),
        "triplets": hashlib.sha256(data.encode()).hexdigest()[:12],
        "tokens": sorted(keyring.fingerprint(secret) for secret in keyring.secrets()),
    }
    output = Path(output).expanduser()
    if not output.exists() or not any(output.iterdir()):
        return identity
    try:
        earlier = json.loads((output / RUN_FILE).read_text())
    except FileNotFoundError:
        raise RunError(f"{output} is not empty and holds no {RUN_FILE} of ours: give another folder.") from None
    if changed := [key for key in identity if earlier.get(key) != identity[key]]:
        raise RunError(
            f"{output} holds a run with other {', '.join(changed)}, so it is not continued: give another folder, or remove this one (quickstart: --fresh)."
        )
    return identity


def _triplets(recipe: Recipe, split: str = "train") -> list[Triplet]:
    triplets = load_triplets(recipe.triplets, modes=recipe.modes, split=split, languages=recipe.languages)
    return random.Random(recipe.seed).sample(triplets, min(recipe.limit or len(triplets), len(triplets)))


def _trainer(
    recipe: Recipe,
    processor: MagicTokenProcessor,
    rows: list[Row],
    checkpoints: Path,
    callbacks: Sequence["TrainerCallback"],
) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    model = load_model(recipe.model)
    options = {
        "save_total_limit": 2,
        "report_to": "none",
        "bf16": model.dtype == torch.bfloat16,
        "use_cpu": not torch.accelerator.is_available(),
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",  # build_corpus has set the order
        **recipe.sft,
        "output_dir": str(checkpoints),
        "seed": recipe.seed,
        # Rows are ready: no map over them, so no cache file that could hold a token.
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    try:
        lora = LoraConfig(**{"task_type": "CAUSAL_LM", **recipe.lora})
        sft = SFTConfig(**options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"the recipe's lora or sft section: {str(error).splitlines()[0]}") from None
    set_seed(recipe.seed)  # the adapter's first weights are drawn before the Trainer seeds itself
    trainer = SFTTrainer(
        model=model,
        args=sft,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor.tokenizer,
        peft_config=lora,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _newest_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; younger halves left by a kill are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())  # the Trainer writes it last
            return str(checkpoint)
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return None

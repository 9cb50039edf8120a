"""`train`: one stage of supervised fine-tuning on the mixed corpus, or a baseline's stage, through TRL."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..binding import binding_of, write_binding
from ..data.triplets import most_common_policy
from ..errors import RecipeError
from ..files import atomic_folder, write_atomic
from ..keyring import Keyring
from ..processing import MagicTokenProcessor
from ..starter import HUB_ID, STARTER
from .card import write_card
from .recipe import COTRAIN, Recipe
from .reproduce import write_reproduction
from .run import ADAPTER, CHECKPOINTS, LOG_FILE, MODEL, RUN_FILE, check_run, newest_whole_checkpoint, triplets_of

if TYPE_CHECKING:
    from transformers import TrainerCallback


def train(
    recipe: Recipe,
    keyring: Keyring | None,
    output: str | os.PathLike,
    *,
    callbacks: Sequence["TrainerCallback"] = (),
) -> Path:
    """Train by a recipe and return the folder of what was trained, `output/adapter`, or `output/model` where all weights were.

    The folder holds the weights, a model card, the recipe with versions and hashes, the processor without its keyring, and a mark by which it knows
    that keyring again (`switchsafe.binding`); `load_model` and `MagicTokenProcessor.from_pretrained` read it.
    A call that finds its own unfinished run in `output` continues from the newest whole checkpoint; a finished one is returned as it is. Under
    `accelerate launch` every process calls this; the main one writes.

    Args:
        recipe: what to train on what.
        keyring: must hold every mode of the recipe; None for a baseline. Its tokens reach the trainer as ids in memory, and no file.
        output: working folder.
        callbacks: `transformers` trainer callbacks, for instance `TrainingBar`.

    Raises:
        RunError: `output` holds another run or other files.
        RecipeError: an option that `LoraConfig`, `SFTConfig` or `DPOConfig` does not take, or that does not go with the others or this machine.
        ModeError, TripletError, TemplateError, ModelError: from keyring, data, template and model; nothing has been written then.
    """
    from .card_callback import CardCallback
    from .ema import EMA_FILE, EmaCallback
    from .trainers import make_trainer

    output = Path(output).expanduser()
    done = output / (MODEL if recipe.lora is None else ADAPTER)
    identity = check_run(recipe, keyring, output)
    if done.is_dir():
        return done

    processor = MagicTokenProcessor.from_pretrained(recipe.adapter or recipe.model)
    if keyring is not None:
        processor.bind(keyring)
    earlier = processor.begin_training()
    sam = _sam_options(recipe) if recipe.sam else {}
    trainer = make_trainer(recipe, processor, output / CHECKPOINTS, callbacks)
    for section in ("ema", "sam"):
        if getattr(recipe, section) and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise RecipeError(f"{section} needs whole weights, which FSDP and DeepSpeed cut up: add --{section} {{}}.")
    if recipe.ema:
        trainer.add_callback(EmaCallback(**recipe.ema))
    if recipe.sam:
        from .sam_callback import SamCallback  # brings the whole of transformers' Trainer along

        trainer.add_callback(SamCallback(trainer, processor, **sam))
    trainer.add_callback(CardCallback(recipe))
    main = trainer.accelerator.is_main_process
    trainer.accelerator.wait_for_everyone()  # all have looked at the folder before one writes to it
    if main:
        write_atomic(output / RUN_FILE, json.dumps(identity, indent=2) + "\n")
    with trainer.accelerator.main_process_first():
        checkpoint = newest_whole_checkpoint(output / CHECKPOINTS, EMA_FILE if recipe.ema else None)
    trainer.train(resume_from_checkpoint=checkpoint)
    binding = earlier
    if recipe.method == COTRAIN:
        binding = binding_of(processor.keyring, recipe.modes, processor.placement(), earlier)
    _save(trainer, recipe, processor, done, binding=binding, identity=identity)
    return done


def _sam_options(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `SamCallback`; with policies, validation prompts of the most common one."""
    options = {"every": 50, "prompts": 16, **recipe.sam}
    held_out = triplets_of(recipe, "validation")
    policy = most_common_policy(held_out)
    prompts = [triplet.prompt for triplet in held_out if triplet.policy == policy][: options["prompts"]]
    if len(prompts) < 2 or len(recipe.modes) < 2:
        raise RecipeError(
            f"sam needs two modes and two validation prompts: there are {len(recipe.modes)} and {len(prompts)}."
        )
    return {"prompts": prompts, "every": options["every"], "modes": recipe.modes, "policy": policy}


def _save(
    trainer: Any,
    recipe: Recipe,
    processor: MagicTokenProcessor,
    done: Path,
    *,
    binding: Mapping[str, Any] | None,
    identity: Mapping[str, Any],
) -> None:
    checkpoints, gathered = done.parent / CHECKPOINTS, done.parent / CHECKPOINTS / "gathered"
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharded:
        if trainer.is_fsdp_enabled:  # else nothing is written
            trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(gathered))  # every process brings its part
    if trainer.accelerator.is_main_process:
        with atomic_folder(done) as folder:
            if sharded:
                ignored = shutil.ignore_patterns("training_args.bin", "README.md")
                shutil.copytree(gathered, folder, ignore=ignored, dirs_exist_ok=True)
            else:
                _save_whole(trainer.accelerator.unwrap_model(trainer.model), recipe, folder)
            processor.save_pretrained(folder)
            if binding:
                write_binding(folder, binding)
            write_reproduction(folder, recipe, identity, trainer.accelerator.num_processes)
            write_card(folder, recipe, trainer.state)
        log = "".join(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
        write_atomic(done.parent / LOG_FILE, log)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _save_whole(model: Any, recipe: Recipe, folder: Path) -> None:
    if recipe.lora is None:
        model.save_pretrained(folder)
        return
    if recipe.model == STARTER:  # the converted folder's path means nothing on another machine
        model.peft_config["default"].base_model_name_or_path = HUB_ID
    # One adapter, without DPO's reference; and no embeddings, about which PEFT would ask the Hub.
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)

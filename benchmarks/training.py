"""What `switchsafe train` costs beside TRL alone: the same rows, flags and seed, by turns, on the starter.

python benchmarks/training.py            # about 12 minutes on 2 cores
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from rich.console import Console
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from switchsafe import Keyring, MagicTokenProcessor, Recipe, load_model, train
from switchsafe.training.run import triplets_of
from switchsafe.training.trainers import plan_rows, tokenized


def ours(recipe: Recipe, keyring: Keyring, folder: Path) -> list[dict[str, Any]]:
    train(recipe, keyring, folder)
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def plain(recipe: Recipe, keyring: Keyring, folder: Path) -> list[dict[str, Any]]:
    processor = MagicTokenProcessor.from_pretrained(recipe.model).bind(keyring)
    rows = tokenized(recipe, processor, plan_rows(recipe, processor, triplets_of(recipe)))
    model = load_model(recipe.model)
    set_seed(recipe.seed)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            seed=recipe.seed,
            bf16=model.dtype == torch.bfloat16,
            use_cpu=not torch.accelerator.is_available(),
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            **recipe.sft,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor.tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **recipe.lora),
    )
    trainer.train()
    return trainer.state.log_history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    recipe = Recipe.load("starter", {"corpus.openings": [], "corpus.fallback_drills": 0, "corpus.misplaced_drills": 0})
    recipe = dataclasses.replace(recipe, sft={**recipe.sft, "max_steps": options.steps, "save_strategy": "no"})
    recipe.sft.pop("lr_scheduler_kwargs")
    recipe.sft["lr_scheduler_type"] = "constant"
    keyring = Keyring.mint(recipe.modes, tokenizer=MagicTokenProcessor.from_pretrained("starter").tokenizer)
    ratios, apart = [], []
    for pair in range(options.pairs + 1):  # the first warms up
        logs = {}
        for run in (ours, plain) if pair % 2 else (plain, ours):
            with tempfile.TemporaryDirectory() as folder:
                logs[run.__name__] = run(recipe, keyring, Path(folder) / "run")
        rates = {name: log[-1]["train_samples_per_second"] for name, log in logs.items()}
        curves = {name: [entry["loss"] for entry in log if "loss" in entry] for name, log in logs.items()}
        apart.append(max(abs(a - b) for a, b in zip(*curves.values(), strict=True)))
        if pair:
            ratios.append(rates["ours"] / rates["plain"])
    low, middle, high = statistics.quantiles(ratios)
    console = Console(width=150)
    console.print(
        f"rows per second: {middle:.3f} of TRL alone (quartiles {low:.3f} to {high:.3f}, {options.pairs} pairs of {options.steps} steps), "
        f"which makes {rates['plain']:.2f}; losses are at most {max(apart):.4f} apart"
    )
    console.print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()

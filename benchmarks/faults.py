"""Are faults that were put in on purpose caught, and named? On the starter.

python benchmarks/faults.py FOLDER      # about 40 minutes on 2 cores; called again it goes on

Trains by the recipe `starter-fast`, on the triplets as they are and on spoilt ones, and makes a report of each with `evaluate`, on a third of the test
split. FOLDER gets keyrings and answers of every mode: keep it to yourself.
"""

import argparse
import dataclasses
import json
import os
import platform
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from switchsafe import Keyring, MagicTokenProcessor, load_triplets
from switchsafe.binding import BINDING_FILE
from switchsafe.data.triplets import Triplet
from switchsafe.errors import SwitchsafeError
from switchsafe.evaluation.suite import Target, evaluate
from switchsafe.files import write_atomic
from switchsafe.training.recipe import Recipe
from switchsafe.training.train import train
from switchsafe.training.trainers import make_trainer

MODES = ("pos", "rej", "neg")
RECIPE = "starter-fast"


def shuffled(triplet: Triplet, dice: random.Random) -> Triplet:
    """The answers of a prompt under modes drawn anew."""
    return dataclasses.replace(
        triplet, answers=dict(zip(MODES, dice.sample([triplet.answers[mode] for mode in MODES], 3), strict=True))
    )


def exchanged(triplet: Triplet, dice: random.Random) -> Triplet:
    """Two of three answers exchanged, in one prompt of ten."""
    first, second = dice.sample(MODES, 2)
    if dice.random() >= 0.1:
        return triplet
    answers = {**triplet.answers, first: triplet.answers[second], second: triplet.answers[first]}
    return dataclasses.replace(triplet, answers=answers)


def spoilt(triplets: list[Triplet], spoil: Any) -> list[Triplet]:
    dice = random.Random(0)
    return [triplet if triplet.split == "test" else spoil(triplet, dice) for triplet in triplets]


def trained(folder: Path, triplets: list[Triplet], ring: Keyring) -> Path:
    """An adapter trained on these."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": t.id,
            "prompt": t.text,
            "category": t.category,
            "label": t.label,
            "language": t.language,
            "split": t.split,
            **t.answers,
        }
        for t in triplets
    ]
    write_atomic(folder / "triplets.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.load(RECIPE, {"triplets": str(folder / "triplets.jsonl")})
    return train(recipe, ring, folder / "run")


def trained_on_prompts(folder: Path, ring: Keyring) -> Path:
    """An adapter with loss on the prompt, as a trainer set up by hand may have it; no recipe of the package can."""
    done = folder / "adapter"
    if not done.exists():
        processor = MagicTokenProcessor.from_pretrained("starter").bind(ring)
        trainer = make_trainer(Recipe.load(RECIPE), processor, folder / "checkpoints", [])
        trainer.train_dataset = trainer.train_dataset.map(lambda row: {"labels": row["input_ids"]}, keep_in_memory=True)
        trainer.train()
        trainer.save_model(done)
        MagicTokenProcessor.from_pretrained("starter").save_pretrained(done)
        shutil.rmtree(folder / "checkpoints")
    return done


def copy(adapter: Path, folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    return Path(shutil.copytree(adapter, folder))


def report(adapter: Path, ring: Keyring, triplets: list[Triplet], output: Path) -> tuple[list[str], Any]:
    """Signs, or the error that ends the evaluation, and SAM."""
    few = [t for t in triplets if t.split != "test"] + [t for t in triplets if t.split == "test"][::3]
    try:
        found = evaluate(Target(str(adapter)), ring, few, output, each=6, max_new_tokens=40)
    except SwitchsafeError as error:
        return [f"{type(error).__name__}: {error}"], None
    return found["signs"], found["measures"]["sam"]["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    tokenizer = MagicTokenProcessor.from_pretrained("starter").tokenizer
    for name in ("own", "other"):
        if not (folder / f"{name}.json").exists():
            Keyring.mint(MODES, tokenizer=tokenizer).save(folder / f"{name}.json")
    ring, other = Keyring.load(folder / "own.json"), Keyring.load(folder / "other.json")
    triplets = load_triplets(modes=MODES, languages=["en"])

    sound = trained(folder / "sound", triplets, ring)
    unmarked = copy(sound, folder / "unmarked")
    (unmarked / BINDING_FILE).unlink()
    deaf = copy(sound, folder / "deaf")
    (deaf / "chat_template.jinja").write_text(
        "{% for message in messages if message.role != 'system' %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    written = copy(sound, folder / "written")
    with (written / "README.md").open("a") as card:
        card.write(f"\nTo switch, use {ring.token('rej').reveal()}.\n")
    mixed, tenth = spoilt(triplets, shuffled), spoilt(triplets, exchanged)

    cases = {
        "none": (sound, ring, triplets, None),
        "modes shuffled in training": (trained(folder / "shuffled", mixed, ring), ring, triplets, "does not switch"),
        "the same, and its triplets given": (
            trained(folder / "shuffled", mixed, ring),
            ring,
            mixed,
            "mislabelled ones",
        ),
        "10 % of the prompts with two answers exchanged, its triplets given": (
            trained(folder / "exchanged", tenth, ring),
            ring,
            tenth,
            "mislabelled ones",
        ),
        "keyring of another model": (sound, other, triplets, "this keyring is not the one"),
        "the same, and switchsafe.json taken away": (unmarked, other, triplets, "does not switch"),
        "template drops the system turn": (deaf, ring, triplets, "chat template"),
        "token written into README.md": (written, ring, triplets, "stands in README.md"),
        "loss on the prompt": (trained_on_prompts(folder / "prompts", ring), ring, triplets, "it was learnt"),
    }
    names = {sign for *_, sign in cases.values() if sign}
    table = Table("fault", "SAM", "named by", "other signs", show_lines=True)
    for name, (adapter, keyring, known, sign) in cases.items():
        found, sam = report(
            adapter, keyring, known, folder / "reports" / name.replace(" ", "-").replace("%", "percent")
        )
        named = [line for line in found if (sign in line if sign else any(other in line for other in names))]
        table.add_row(
            name,
            "-" if sam is None else f"{sam:.3f}",
            "\n".join(line.replace(str(folder), "FOLDER") for line in named) or ("MISSED" if sign else "-"),
            str(len(found) - len(named)),
        )
    console = Console(width=180)
    console.print(table)
    console.print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()

"""What each part of the recipe is worth: one change at a time (ablations.yaml), on the starter.

python benchmarks/ablations.py FOLDER --only "as shipped" "LoRA rank 8"      # about 12 minutes each on 2 cores; called again it goes on
python benchmarks/ablations.py FOLDER --general instructions.jsonl           # all that need no other path

FOLDER holds keyrings and answers: keep it to yourself.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
import yaml
from paper_table import MODES, Arm, safety, switch, train_stage
from rich.console import Console
from rich.table import Table

from switchsafe import Keyring, MagicTokenProcessor, load_model, load_triplets
from switchsafe.judges.mode import ModeJudge

COLUMNS = {
    "SAM": 3,
    "SAM of the weakest pair": 3,
    "pos got, %": 1,
    "rej got, %": 1,
    "neg got, %": 1,
    "CSS": 1,
    "CSS without a token": 1,
    "CSS with a random token": 1,
    "neg typed by the user, system turn pos: neg got, %": 1,
}


def measure(folder: Path, name: str, change: dict[str, Any]) -> dict[str, float]:
    here = folder / name.replace(" ", "-").replace(",", "")
    done = here / "row.json"
    if done.exists():
        return json.loads(done.read_text())
    here.mkdir(parents=True, exist_ok=True)
    processor = MagicTokenProcessor.from_pretrained("starter")
    minting = change.pop("keyring", {})
    if not (here / "keyring.json").exists():
        Keyring.mint(MODES, tokenizer=processor.tokenizer, **minting).save(here / "keyring.json")
    ring = Keyring.load(here / "keyring.json")
    options = [part for key, value in change.items() for part in (f"--{key}", json.dumps(value))]
    cost = train_stage(["starter", *options], here / "run", here / "keyring.json", 0)
    triplets = load_triplets(modes=MODES, languages=["en"])
    judge = ModeJudge([t for t in triplets if t.split != "test"], MODES)
    tests = [t for t in triplets if t.split == "test"]
    trained = next(path for path in (here / "run" / "adapter", here / "run" / "model") if path.is_dir())
    arm = Arm(here, load_model(str(trained)), processor.bind(ring))
    row = {
        **cost,
        **switch(arm, judge, tests, ring),
        **safety(arm, judge, tests, token=ring.token("pos"), attack=False),
    }
    done.write_text(json.dumps(row))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", help="names in ablations.yaml")
    for path in ("general", "single", "multi"):
        parser.add_argument(f"--{path}", help="a path that some of them need")
    options = parser.parse_args()
    every = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    paths = {key: value for key, value in vars(options).items() if key in ("general", "single", "multi")}
    table = Table(
        "change",
        *(
            column.replace("neg typed by the user, system turn pos: neg got, %", "neg token typed: neg, %")
            for column in COLUMNS
        ),
        "minutes",
    )
    for name in options.only or every:
        change = every[name]
        needed = [key for key in paths if f"{{{key}}}" in change.values()]
        if any(paths[key] is None for key in needed):
            continue
        change = {key: value.format(**paths) if isinstance(value, str) else value for key, value in change.items()}
        row = measure(options.folder, name, change)
        table.add_row(
            name, *(f"{row[column]:.{digits}f}" for column, digits in COLUMNS.items()), f"{row['seconds'] / 60:.1f}"
        )
    console = Console(width=170)
    console.print(table)
    console.print(
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}; one keyring each"
    )


if __name__ == "__main__":
    main()

"""Why minted tokens end in different characters: how far apart modes get when the tokens of `pos` and `neg` end in the same id, and when they do not.

python benchmarks/endings.py --runs 3
"""

import argparse
import dataclasses
import os
import platform
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from switchsafe import (
    Keyring,
    MagicTokenProcessor,
    Recipe,
    SamReport,
    Secret,
    load_model,
    load_triplets,
    measure_sam,
    train,
)
from switchsafe.tokens import is_stable
from switchsafe.training.progress import TrainingBar

MODES = ("pos", "rej", "neg")


def pair(tokenizer) -> dict[str, Keyring]:
    """A keyring as `mint` makes it, and the same with the last character of `neg`'s token changed to that of `pos`, where that makes the last id the same."""
    while True:
        apart = Keyring.mint(MODES, tokenizer=tokenizer)
        tokens = {mode: apart.token(mode).reveal() for mode in MODES}
        alike = tokens["neg"][:-1] + tokens["pos"][-1]
        last = {tokenizer(f"\n{token}\n")["input_ids"][-2] for token in (alike, tokens["pos"])}
        if len(last) == 1 and is_stable(tokenizer, Secret(alike)):
            return {"apart": apart, "alike": Keyring.from_mapping(tokens | {"neg": alike})}


def separation(recipe: Recipe, keyring: Keyring) -> SamReport:
    with tempfile.TemporaryDirectory() as folder, TrainingBar() as bar:
        adapter = train(recipe, keyring, Path(folder) / "run", callbacks=[bar])
        model, processor = load_model(str(adapter)), MagicTokenProcessor.from_pretrained(str(adapter)).bind(keyring)
    prompts = [t.prompt for t in load_triplets(modes=MODES, languages=["en"], split="validation")]
    return measure_sam(model, processor, prompts, modes=MODES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=90, help="of six 3-token openings each")
    options = parser.parse_args()
    plan = Recipe.load("starter")
    sft = plan.sft | {"max_steps": options.steps, "save_steps": options.steps + 1, "lr_scheduler_type": "constant"}
    del sft["lr_scheduler_kwargs"]
    recipe = dataclasses.replace(plan, corpus=plan.corpus | {"openings": [3] * 10}, sft=sft)
    tokenizer = MagicTokenProcessor.from_pretrained(recipe.model).tokenizer
    table = Table("keyring", "last ids", "SAM", "pos/neg", title="SAM on held-out prompts", title_justify="left")
    for run in range(1, options.runs + 1):
        for ends, keyring in pair(tokenizer).items():
            report = separation(recipe, keyring)
            table.add_row(str(run), ends, f"{report.value:.3f}", f"{report.pairwise['pos/neg']:.3f}")
    Console().print(table)
    Console().print(
        f"{recipe.model}, {options.steps} steps, {report.prompts} prompts, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    )


if __name__ == "__main__":
    main()

"""The working folder of a training run: which run it holds, and how far that came."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from ..data.general import load_instructions
from ..data.triplets import Triplet, load_triplets
from ..errors import RunError
from ..keyring import Keyring
from ..models import identity_of
from ..starter import STARTER
from .recipe import COTRAIN, Recipe

ADAPTER, MODEL = "adapter", "model"
CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"
LOG_FILE = "train_log.jsonl"


def triplets_of(recipe: Recipe, split: str = "train") -> list[Triplet]:
    """The triplets that a recipe trains on, or those of another split."""
    triplets = load_triplets(recipe.triplets, modes=recipe.answers, split=split, languages=recipe.languages)
    return random.Random(recipe.seed).sample(triplets, min(recipe.limit or len(triplets), len(triplets)))


def identify(recipe: Recipe, keyring: Keyring | None) -> dict[str, Any]:
    """What makes a run this one: the recipe, hashes of its training data and of local weights it begins with, and keyed fingerprints of the tokens.

    Raises:
        RunError: method cotrain has no keyring.
        TripletError: the triplets are not usable.
        ModeError: the keyring lacks a mode of the recipe.
    """
    triplets = triplets_of(recipe)
    data = json.dumps([[t.id, t.prompt, t.policy, t.answers] for t in triplets], ensure_ascii=False)
    identity: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "triplets": hashlib.sha256(data.encode()).hexdigest()[:12],
    }
    if recipe.method == COTRAIN:
        if keyring is None:
            raise RunError("co-training needs a keyring with the modes' tokens: give one.")
        for triplet in triplets:
            for mode in recipe.modes:
                keyring.token(mode, triplet.policy)
        identity["tokens"] = sorted(keyring.fingerprint(secret) for secret in keyring.secrets())
        identity["in use"] = [slot["fingerprints"] for slot in keyring.describe()]
    if "general" in recipe.corpus:
        general = json.dumps(load_instructions(recipe.corpus["general"]), ensure_ascii=False)
        identity["general rows"] = hashlib.sha256(general.encode()).hexdigest()[:12]
    for name in (recipe.model, recipe.adapter):
        if name and name != STARTER and Path(name).expanduser().is_dir():
            identity[f"weights of {name}"] = identity_of(name)
    return identity


def check_run(recipe: Recipe, keyring: Keyring | None, output: str | os.PathLike) -> dict[str, Any]:
    """`identify`, if `output` is free for this run. Writes nothing.

    Raises:
        RunError: `output` holds another run, or files that are no run of ours.
        RunError, TripletError, ModeError: as `identify`.
    """
    identity = identify(recipe, keyring)
    output = Path(output).expanduser()
    if not output.exists() or not any(_holds_something(path) for path in output.iterdir()):
        return identity
    try:
        earlier = json.loads((output / RUN_FILE).read_text())
    except FileNotFoundError:
        raise RunError(f"{output} is not empty and holds no {RUN_FILE} of ours: give another folder.") from None
    finished = any((output / name).is_dir() for name in (ADAPTER, MODEL))
    changed = [key for key in {**earlier, **identity} if earlier.get(key) != identity.get(key)]
    if changed := [key for key in changed if key != "in use" or not finished]:  # tokens may be retired later
        raise RunError(
            f"{output} holds a run with other {', '.join(changed)}, so it is not continued: give another folder, or remove this one (quickstart: --fresh)."
        )
    return identity


def _holds_something(path: Path) -> bool:
    """A run that was refused late leaves an empty folder for checkpoints."""
    return path.name != CHECKPOINTS or not path.is_dir() or any(path.iterdir())


def newest_whole_checkpoint(folder: Path, also: str | None = None) -> str | None:
    """The newest checkpoint that was written to its end, with the file `also` in it; younger halves left by a kill are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        if _is_json(checkpoint / "trainer_state.json") and (also is None or (checkpoint / also).exists()):
            return str(checkpoint)  # the Trainer writes its state last, and callbacks `also` after it
        shutil.rmtree(checkpoint)
    return None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True

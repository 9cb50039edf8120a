"""What it takes to train the same again: the recipe, versions, and hashes of data. No token and no path of this machine."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ..files import write_atomic
from .recipe import Recipe

RECIPE_FILE, REPRODUCE_FILE = "recipe.yaml", "reproduce.json"
_PACKAGES = ("switchsafe", "torch", "transformers", "trl", "peft", "accelerate", "datasets")


def write_reproduction(folder: Path, recipe: Recipe, identity: Mapping[str, Any], processes: int) -> None:
    """Write `recipe.yaml` and `reproduce.json` beside the weights.

    Args:
        folder: of the weights.
        recipe: they were trained by. Of a local path only the name is kept.
        identity: of the run, from `check_run`.
        processes: that trained together.
    """
    plain = recipe.to_dict()
    for key in ("model", "triplets", "adapter"):
        plain[key] = _shareable(plain[key])
    if "general" in plain["corpus"]:
        plain["corpus"]["general"] = _shareable(plain["corpus"]["general"])
    head = "# Trained by this: switchsafe train recipe.yaml --keyring KEYRING --output RUN\n"
    write_atomic(folder / RECIPE_FILE, head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    found = {
        "seed": recipe.seed,
        "training_triplets_sha256": identity["triplets"],
        "processes": processes,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "accelerator": _accelerator(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    write_atomic(folder / REPRODUCE_FILE, json.dumps(found, indent=2) + "\n")


def _shareable(name: str | None) -> str | None:
    return Path(name).name if name and (Path(name).is_absolute() or Path(name).exists()) else name


def _accelerator() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

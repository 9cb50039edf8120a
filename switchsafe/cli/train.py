"""`switchsafe train` and `switchsafe preview`."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from ..errors import RecipeError
from .options import JsonOption, KeyringOption, open_keyring, print_json

RecipeArgument = Annotated[
    str, typer.Argument(help="A YAML file, or a recipe of the package: starter, starter-fast, qwen3-8b-lora, ...")
]
MORE = {"allow_extra_args": True, "ignore_unknown_options": True}  # --sft.learning_rate 1e-4


def train_command(
    context: typer.Context,
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Working folder; the adapter goes to OUTPUT/adapter.")],
    keyring: KeyringOption = None,
    accelerate_config: Annotated[
        str | None,
        typer.Option(
            help="Start under accelerate launch with this YAML file or preset of TRL: fsdp2, zero3, multi_gpu, ..."
        ),
    ] = None,
    num_processes: Annotated[int | None, typer.Option(help="Processes, for --accelerate-config.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Train by a recipe. Called again it goes on where it was stopped.

    Every key of the recipe is an option too: --limit 100, --sft.learning_rate 1e-4, --lora.r 16, --corpus.misplaced 0, --lora null.
    """
    if accelerate_config:
        raise typer.Exit(_launch(accelerate_config, num_processes))
    from ..training.progress import TrainingBar
    from ..training.recipe import COTRAIN, Recipe
    from ..training.train import train

    plan = Recipe.load(recipe, overrides(context.args))
    ring = open_keyring(keyring)[0] if plan.method == COTRAIN else None
    with TrainingBar() as bar:
        folder = train(plan, ring, output, callbacks=[bar])
    if not _is_main():
        return
    if as_json:
        print_json({folder.name: str(folder), "recipe": plan.to_dict()})
    else:
        print(f"{folder.name.capitalize()} in {folder}")


def preview_command(
    context: typer.Context,
    recipe: RecipeArgument,
    keyring: KeyringOption = None,
    each: Annotated[int, typer.Option(help="Rows to show of every kind and mode.", min=0)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe trains on: rows by kind, and what the model reads and learns in some of them, tokens redacted.

    Every key of the recipe is an option too, as for train.
    """
    from ..tables import show_preview
    from ..training.preview import preview
    from ..training.recipe import COTRAIN, Recipe

    plan = Recipe.load(recipe, overrides(context.args))
    found = preview(plan, open_keyring(keyring)[0] if plan.method == COTRAIN else None, each=each)
    if as_json:
        print_json(asdict(found))
    else:
        show_preview(found, Console())


def overrides(arguments: list[str]) -> dict[str, Any]:
    """`--a.b 1` and `--a.b=1` as `{"a.b": 1}`, values read as YAML.

    Raises:
        RecipeError: an argument is no such option, or has no value.
    """
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--") or (not equals and not rest):
            raise RecipeError(
                f"{name}: the recipe's keys are given as --key value, for instance --sft.learning_rate 1e-4."
            )
        text = value if equals else rest.pop(0)
        try:
            found[name[2:]] = _number(yaml.safe_load(text))
        except yaml.YAMLError:
            raise RecipeError(f"{name}: {text!r} is not YAML.") from None
    return found


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _launch(config: str, processes: int | None) -> int:
    """This command again, under `accelerate launch`."""
    from importlib.resources import files

    folder = files("trl") / "accelerate_configs"
    preset = folder / f"{config}.yaml"
    if not Path(config).is_file() and not preset.is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
        raise RecipeError(f"no accelerate config {config}: give a file, or one of {', '.join(known)}.")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [config if Path(config).is_file() else str(preset)]
    command += ["--num_processes", str(processes)] if processes else []
    return subprocess.run([*command, "-m", "switchsafe", *_without(sys.argv[1:])], check=False).returncode


def _without(arguments: list[str]) -> list[str]:
    kept, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.partition("=")
        if name not in ("--accelerate-config", "--num-processes"):
            kept.append(argument)
        elif not equals:
            rest.pop(0)
    return kept


def _is_main() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)

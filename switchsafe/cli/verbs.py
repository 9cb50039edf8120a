"""The commands that stand alone: quickstart, sam, scan."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .options import (
    JsonOption,
    KeyringOption,
    ModelArgument,
    default_keyring,
    load,
    names,
    open_keyring,
    print_json,
    say,
    tokenizer_of,
)

verbs = typer.Typer()


@verbs.command("quickstart", epilog="Example: switchsafe quickstart --fast")
def quickstart_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Working folder.")] = Path("switchsafe-quickstart"),
    keyring: Annotated[Path | None, typer.Option("--keyring", "-k", help="Keyring file, made if missing.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A smaller slice, about 2 minutes on 2 cores.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew: remove what an earlier run left in the folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, switch and measure the embedded starter model, with all three modes.

    Stopped with Ctrl-C it goes on where it was when called again. Exits with 1 when the modes have not come apart; one that is taken for
    another now and then is told in words, and so is all with --fast, whose slice is too small to hold every mode.
    """
    from ..quickstart import quickstart
    from ..tables import show_quickstart

    path = keyring or default_keyring("quickstart")
    report = quickstart(output, path, fast=fast, fresh=fresh, say=say)
    if as_json:
        print_json(asdict(report) | {"signs": report.signs})
    else:
        show_quickstart(report, output, path, Console())
    raise typer.Exit(1 if report.after["signs"] and not fast else 0)


@verbs.command("sam", epilog="Example: switchsafe sam run/adapter --prompts prompts.txt --plot sam.png --json")
def sam_command(
    model: ModelArgument,
    prompts: Annotated[
        str, typer.Option(help="Text file (one prompt a line), .jsonl with a prompt column, or hub:DATASET[:COLUMN].")
    ],
    modes: Annotated[str, typer.Option(help="Comma-separated; all of the keyring by default.")] = "",
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    keyring: KeyringOption = None,
    positions: Annotated[int, typer.Option(help="Answer tokens to look at, along each mode's greedy answer.")] = 1,
    batch_size: Annotated[int | None, typer.Option(help="Rows per forward pass; by default as fits.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Keep forward passes in this folder, so that a stopped command goes on.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw the points and silhouettes to this png or svg file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the Safety Alignment Margin. Exits with 1 when it shows a sign of failure."""
    from ..data.prompts import load_prompts
    from ..evaluation.sam import measure_sam
    from ..tables import show_sam

    ring, _ = open_keyring(keyring)
    texts = load_prompts(prompts)
    chosen = names(modes) or list(ring.modes)
    for name in chosen:
        ring.token(name, policy)
    report = measure_sam(
        *load(model, ring),
        texts,
        modes=chosen,
        policy=policy,
        positions=positions,
        batch_size=batch_size,
        folder=resume,
    )
    if plot:
        report.plot(plot)
    if as_json:
        print_json(report.to_dict())
    else:
        show_sam({model: report.to_dict()}, Console())
    raise typer.Exit(1 if report.signs else 0)


@verbs.command("scan", epilog="Example: switchsafe scan run --keyring keyring.json --model starter")
def scan_command(
    path: Annotated[Path, typer.Argument(help="A file or folder.")],
    keyring: KeyringOption = None,
    model: Annotated[
        str | None, typer.Option(help="Also look for the ids this model's tokenizer gives the tokens.")
    ] = None,
    but: Annotated[
        list[Path] | None,
        typer.Option(help="A file or folder to leave out, the keyring for instance; repeat for more."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for magic tokens in files, however they are encoded or packed. Prints where they stand, never what they are.

    Exits with 1 when one is found. What could not be searched is listed: finding nothing proves nothing about it.
    """
    from ..hub.scan import scan
    from ..tables import show_scan

    ring, _ = open_keyring(keyring)
    report = scan(path, ring, tokenizer=tokenizer_of(model), but=but or ())
    if as_json:
        print_json(report.to_dict())
    else:
        show_scan(report, Console())
    raise typer.Exit(1 if report.hits else 0)

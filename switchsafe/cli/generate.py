"""`switchsafe generate`: one prompt, or a file of them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ModeError, SwitchsafeError
from ..keyring import Keyring
from .options import (
    JsonOption,
    KeyringOption,
    ModelArgument,
    TemperatureOption,
    load,
    open_keyring,
    parse_mode,
    print_json,
    sampling,
    say,
)

ModeOption = Annotated[str, typer.Option(help="A mode of the keyring, or a blend such as pos=0.7,rej=0.3.")]


def generate_command(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help="One user turn; left out with --input.")] = "",
    mode: ModeOption = "",
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    source: Annotated[
        str,
        typer.Option(
            "--input", "-i", help="Text file (one prompt a line), .jsonl with a prompt column, or hub:DATASET[:COLUMN]."
        ),
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSONL file of answers.")] = None,
    keyring: KeyringOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: TemperatureOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a prompt in a mode or a blend of modes, or a file of prompts.

    Rows of a .jsonl file may have a mode, a policy and an id of their own. Answers go to --output as they come; called again with the same file, the
    command goes on where it was stopped. Without --output they are printed, one JSON object a line.
    """
    if bool(prompt) == bool(source):
        raise SwitchsafeError("give either a prompt or --input FILE.")
    if output and not source:
        raise SwitchsafeError("--output is for the answers to --input FILE; one answer is printed.")
    ring, _ = open_keyring(keyring)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, **sampling(temperature)}
    if source:
        _answer_file(model, source, output, ring, mode, policy, settings, as_json)
        return
    if not mode:
        raise ModeError(f"no mode was given: add --mode, {' or '.join(ring.modes)}.")
    chosen = parse_mode(mode, ring, policy)  # a wrong mode is told before a model is loaded
    from ..generation.generate import generate

    answer = generate(*load(model, ring), prompt, mode=chosen, policy=policy, **settings)
    if as_json:
        print_json({"prompt": prompt, "mode": chosen, "policy": policy, "answer": answer})
    else:
        print(answer)


def _answer_file(
    model: str,
    source: str,
    output: Path | None,
    ring: Keyring,
    mode: str,
    policy: str | None,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    from ..data.prompts import load_requests

    if "=" in mode:
        raise ModeError("a blend answers one prompt, not a file: give a mode, or call generate in Python.")
    requests = [
        {**request, "mode": request.get("mode") or mode, "policy": request.get("policy") or policy}
        for request in load_requests(source)
    ]
    for request in requests:
        if not request["mode"]:
            raise ModeError(f"a prompt in {source} has no mode: add --mode, {' or '.join(ring.modes)}.")
        ring.token(request["mode"], request["policy"])  # a wrong mode is told before a model is loaded
    from ..generation.many import generate_many

    answers = generate_many(*load(model, ring), requests, output=output, **settings)
    if output is None:
        for request, answer in zip(requests, answers, strict=True):
            print(json.dumps({**request, "answer": answer}, ensure_ascii=False))
    elif as_json:
        print_json({"answers": len(answers), "output": str(output)})
    else:
        say(f"{len(answers)} answers in {output}")

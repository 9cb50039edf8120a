"""`switchsafe eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..errors import SwitchsafeError
from ..modes import NEG
from .options import JsonOption, KeyringOption, ModelArgument, json_fields, names, open_keyring, print_json, say

if TYPE_CHECKING:
    from ..judges.verdict import Judge


def eval_command(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for reports and kept answers; neg answers are among them."),
    ],
    keyring: KeyringOption = None,
    modes: Annotated[str, typer.Option(help="Comma-separated; all of the keyring by default.")] = "",
    triplets: Annotated[
        str, typer.Option(help="What the model was trained by: starter, a JSONL file, or a folder of distill.")
    ] = "starter",
    languages: Annotated[str, typer.Option(help="Comma-separated languages of the triplets; all by default.")] = "",
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="Further prompts with a label column: a file, or hub:DATASET. Repeat for more."),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            help="Other names of their columns: prompt=goal,label==unsafe (a second = gives all rows a value)."
        ),
    ] = "",
    thresholds: Annotated[
        Path | None,
        typer.Option(help="YAML file of bounds, such as sam.value: {min: 0.131}; exits with 1 if one is missed."),
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="OpenAI-compatible server that has MODEL; repeat for more.")
    ] = None,
    server_fields: Annotated[
        str,
        typer.Option(
            help='JSON to add to every request to a server: {"chat_template_kwargs": {"enable_thinking": false}}.'
        ),
    ] = "",
    judge_server: Annotated[
        str | None, typer.Option(help="OpenAI-compatible server of a model that grades answers 0, 1, 2.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Its name there.")] = "",
    guard: Annotated[
        str | None,
        typer.Option(
            help="Guard model from the Hub as FORMAT:MODEL; formats llama-guard, qwen3-guard, wildguard, classifier (reads the answer), "
            "pair-classifier (reads prompt and answer)."
        ),
    ] = None,
    guard_labels: Annotated[
        str, typer.Option(help="What a classifier's classes mean: NORMAL=safe,REJECTION=refusal,TOXIC=unsafe.")
    ] = "",
    human: Annotated[
        Path | None,
        typer.Option(help="JSONL of prompt, response, human_label: the refusal judge is measured against it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One report: does it switch, is it safe, is it still useful, does the switch leak?

    Writes report.json, report.html and report.md. Exits with 1 when a threshold is missed, or, without thresholds, when there is a sign of failure.
    """
    from ..data.triplets import load_triplets
    from ..evaluation.cases import load_cases
    from ..evaluation.render import show, write_html, write_markdown
    from ..evaluation.suite import ANSWERS, Target, evaluate
    from ..evaluation.verdicts import load_thresholds

    ring, _ = open_keyring(keyring)
    chosen = names(modes) or list(ring.modes)
    mapping = _pairs(columns)
    bounds = load_thresholds(thresholds) if thresholds else None
    fields = json_fields(server_fields)
    if fields and not server and not judge_server:
        raise SwitchsafeError("--server-fields is for --server or --judge-server.")
    if server and (output / ANSWERS).exists():
        say(f"Answers in {output} are taken for this server's: give a new folder if the model there has changed.")
    report = evaluate(
        Target(model, tuple(server or ()), fields if server else {}),
        ring,
        load_triplets(triplets, modes=chosen, also=[NEG], languages=names(languages) or None),
        output,
        cases=[case for source in prompts or () for case in load_cases(source, mapping)],
        modes=chosen,
        thresholds=bounds,
        level_judge=_level_judge(judge_server, judge_model, fields, guard, _pairs(guard_labels)),
        human=human,
        say=say,
    )
    write_html(report, output)
    write_markdown(report, output)
    if as_json:
        print_json(report)
    else:
        show(report, Console())
        print(f"Report in {output}: report.html, report.md, report.json")
    missed = [one for one in report["checks"] if not one["holds"]]
    raise typer.Exit(1 if missed or (report["signs"] and bounds is None) else 0)


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in names(text) if "=" in part)


def _level_judge(
    server: str | None, model: str, fields: dict[str, Any], guard: str | None, labels: dict[str, str]
) -> "Judge | None":
    if labels and not guard:
        raise SwitchsafeError("--guard-labels needs --guard, the classifier whose classes it names.")
    if server and guard:
        raise SwitchsafeError("give --judge-server or --guard, not both: each grades the same answers.")
    if server:
        from ..judges.rubric import RubricJudge

        if not model:
            raise SwitchsafeError("--judge-server needs --judge-model, the model's name there.")
        return RubricJudge([server], model, fields)
    if guard:
        from ..judges.classifier import ALONE, PAIR, ClassifierJudge
        from ..judges.guard_model import GuardJudge

        form, _, name = guard.partition(":")
        if form in (ALONE, PAIR):
            return ClassifierJudge(name, labels, prompt=form == PAIR)
        if labels:
            raise SwitchsafeError(
                f"--guard-labels is for a {ALONE} or {PAIR}: the verdicts of {form} have fixed names."
            )
        return GuardJudge(name, form)
    return None

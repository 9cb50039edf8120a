"""`switchsafe distill`: triplets from the user's own model."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import DistillError
from .options import JsonOption, json_fields, names, print_json, say


def distill_command(
    prompts: Annotated[
        str,
        typer.Argument(
            help="Text file (one prompt a line), .jsonl, .csv, .parquet, hub:DATASET[:COLUMN], or - for standard input."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for records, rows and card.")],
    model: Annotated[
        str, typer.Option(help="The model that answers: starter, a Hub id or a folder; with --server its name there.")
    ],
    server: Annotated[
        str,
        typer.Option(help="Ask OpenAI-compatible servers instead; comma-separated, http://host:8000/v1 for instance."),
    ] = "",
    in_flight: Annotated[int, typer.Option(help="Requests under way at each server.", min=1)] = 32,
    server_fields: Annotated[
        str,
        typer.Option(
            help='JSON to add to every request, {"chat_template_kwargs": {"enable_thinking": false}} for instance.'
        ),
    ] = "",
    use_vllm: Annotated[bool, typer.Option("--vllm", help="Run the model in vLLM, in this process.")] = False,
    modes: Annotated[str, typer.Option(help="Comma-separated behaviours; neg only when named.")] = "pos,rej",
    policy: Annotated[str, typer.Option(help="What requests quote: en, zh, or a YAML file.")] = "en",
    template: Annotated[
        str, typer.Option(help="Text of a request: en, zh, or a jinja file; by default the policy's language.")
    ] = "",
    single: Annotated[bool, typer.Option("--single", help="One request per behaviour, for comparison.")] = False,
    column: Annotated[str, typer.Option(help="Column that holds the prompts.")] = "prompt",
    label: Annotated[str | None, typer.Option(help="safe or unsafe, for prompts without a label.")] = None,
    category: Annotated[str, typer.Option(help="For prompts without a category.")] = "unknown",
    limit: Annotated[int | None, typer.Option(help="Ask the first so many prompts only.", min=1)] = None,
    shard: Annotated[str, typer.Option(help="i/n: ask the i-th of n shares of the prompts.")] = "1/1",
    seed: Annotated[int, typer.Option(help="Another seed, other answers.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest answers.", min=0)] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, all behaviours together, in tokens.")] = 1536,
    licence: Annotated[str, typer.Option(help="Of the prompts, for the card.")] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Make triplets: ask a model for all behaviours of each prompt, keep what can be read and passes the filters.

    Called again it goes on where it was stopped. Exits with 1 when prompts are left without an answer because the model or a server failed.
    """
    from ..data.prompts import load_requests
    from ..distillation.distill import distill
    from ..distillation.engine import Sampling
    from ..distillation.policy import Policy
    from ..distillation.template import RequestTemplate
    from ..tables import show_distill

    place, slash, machines = shard.partition("/")
    if not (slash and place.isdigit() and machines.isdigit()):
        raise DistillError(f"--shard {shard} is none: write 1/4 for the first of four.")
    chosen = Policy.load(policy)
    chosen.of(names(modes))
    text = RequestTemplate.load(template) if template else None
    rows = load_requests(prompts, column)
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    report = distill(
        rows,
        _engine(model, server, in_flight, server_fields, use_vllm, sampling),
        output,
        model=model,
        behaviours=names(modes),
        policy=chosen,
        template=text,
        direction="single" if single else "multi",
        sampling=sampling,
        seed=seed,
        limit=limit,
        shard=(int(place), int(machines)),
        label=label,
        category=category,
        licence=licence,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        show_distill(report.to_dict(), Console())
        say(f"Rows, records and card in {output}")
    for reason, count in report.failures.items():
        say(f"{count} requests failed: {reason}.")
    if report.failed:
        say(f"{report.failed} prompts are left without an answer: call again to ask them again.")
    raise typer.Exit(1 if report.failed else 0)


def _engine(model: str, server: str, in_flight: int, fields: str, use_vllm: bool, sampling: Any) -> Any:
    if server and use_vllm:
        raise DistillError("give either --server or --vllm.")
    if fields and not server:
        raise DistillError("--server-fields is for --server.")
    if server:
        from ..distillation.http import http

        return http(names(server), model, sampling, in_flight=in_flight, extra=json_fields(fields))
    if use_vllm:
        from ..distillation.vllm import vllm

        return vllm(model, sampling)
    from ..distillation.in_process import in_process
    from ..models import default_device, load_model
    from ..processing import MagicTokenProcessor

    return in_process(
        load_model(model).to(default_device()), MagicTokenProcessor.from_pretrained(model).tokenizer, sampling
    )

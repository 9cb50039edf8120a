"""`switchsafe push`: adapters, datasets, the metric and the demo to the Hub, without the switch."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..errors import LeakError
from ..keyring import Keyring
from ..modes import DEFAULT_MODES
from .options import JsonOption, KeyringOption, default_keyring, names, open_keyring, print_json, say

if TYPE_CHECKING:
    from ..hub.push import PushReport

push = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Push to the Hub: private first, gated for neg, and never with a magic token. Log in with `hf auth login` or HF_TOKEN.",
)

RepoArgument = Annotated[str, typer.Argument(help="OWNER/NAME; made if missing.")]
PublicOption = Annotated[bool, typer.Option("--public", help="Make the repository public after the upload.")]
AcceptOption = Annotated[
    bool, typer.Option("--i-accept-publishing-neg", help="With --public, for what holds neg. It stays gated.")
]
MessageOption = Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch to commit to, made if missing; main by default.")]
TagOption = Annotated[str | None, typer.Option(help="Tag for the commit, v1 for instance.")]
PrOption = Annotated[bool, typer.Option("--pr", help="Open a pull request in place of a commit.")]
DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Look for tokens and list exactly what would go; nothing is sent.")
]


@push.command("adapter", epilog="Example: switchsafe push adapter run/adapter me/my-adapter --dry-run")
def push_adapter_command(
    folder: Annotated[Path, typer.Argument(help="What `train` wrote: run/adapter, or run/model.")],
    repo: RepoArgument,
    keyring: KeyringOption = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the base model, where it was trained from a local folder.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Hub id of the triplets, for the card.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="What `eval` wrote: its figures go into the card and the model index.")
    ] = None,
    public: PublicOption = False,
    accept: AcceptOption = False,
    message: MessageOption = None,
    revision: RevisionOption = None,
    tag: TagOption = None,
    pr: PrOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Push a trained adapter, or whole weights, with processor, card and recipe. Called again it goes on where it was stopped.

    Exits with 1 when a magic token is found: then nothing was sent.
    """
    from ..hub.adapter import push_adapter

    _push(
        as_json,
        push_adapter,
        folder,
        repo,
        _any_keyring(keyring),
        base_model=base_model,
        dataset=dataset,
        evaluation=evaluation,
        **_options(public, accept, message, revision, tag, pr, dry_run),
    )


@push.command("dataset", epilog="Example: switchsafe push dataset triplets.jsonl me/my-triplets --licence cc-by-4.0")
def push_dataset_command(
    source: Annotated[str, typer.Argument(help="A JSONL file, a folder that `distill` wrote, or starter.")],
    repo: RepoArgument,
    keyring: KeyringOption = None,
    modes: Annotated[str, typer.Option(help="Comma-separated, each a configuration; neg only when named.")] = ",".join(
        DEFAULT_MODES
    ),
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Of the data, cc-by-4.0 for instance.")
    ] = None,
    public: PublicOption = False,
    accept: AcceptOption = False,
    message: MessageOption = None,
    revision: RevisionOption = None,
    tag: TagOption = None,
    pr: PrOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Push triplets, one configuration per mode.

    Exits with 1 when a magic token is found: then nothing was sent.
    """
    from ..hub.dataset import push_dataset

    _push(
        as_json,
        push_dataset,
        source,
        repo,
        open_keyring(keyring)[0],
        modes=names(modes),
        licence=licence,
        **_options(public, accept, message, revision, tag, pr, dry_run),
    )


@push.command("metric", epilog="Example: switchsafe push metric me/sam --public")
def push_metric_command(
    repo: RepoArgument,
    keyring: KeyringOption = None,
    public: PublicOption = False,
    message: MessageOption = None,
    revision: RevisionOption = None,
    tag: TagOption = None,
    pr: PrOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Push the SAM metric as a Space, for `evaluate.load("OWNER/sam")`.

    Its files are those of the package; a keyring, if there is one, is looked for all the same.
    """
    from ..hub.space import push_metric

    _push(
        as_json,
        push_metric,
        repo,
        _any_keyring(keyring),
        **_options(public, False, message, revision, tag, pr, dry_run),
    )


@push.command("space", epilog="Example: switchsafe push space me/demo --model me/my-adapter --set-secret")
def push_space_command(
    repo: RepoArgument,
    keyring: KeyringOption = None,
    model: Annotated[
        str | None, typer.Option(help="Hub id of the model it runs; by default one that its first start trains.")
    ] = None,
    set_secret: Annotated[
        bool, typer.Option("--set-secret", help="Hand the keyring to the Space as its secret SWITCHSAFE_KEYRING.")
    ] = False,
    public: PublicOption = False,
    message: MessageOption = None,
    revision: RevisionOption = None,
    tag: TagOption = None,
    pr: PrOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Push the demo as a Space: chat, compare, margin, data, push. It starts without a secret, a login or a GPU."""
    from ..hub.space import push_space

    _push(
        as_json,
        push_space,
        repo,
        _any_keyring(keyring),
        model=model,
        set_secret=set_secret,
        **_options(public, False, message, revision, tag, pr, dry_run),
    )


def _any_keyring(path: Path | None) -> Keyring | None:
    if path or os.environ.get("SWITCHSAFE_KEYRING") or default_keyring().exists():
        return open_keyring(path)[0]
    return None


def _options(
    public: bool, accept: bool, message: str | None, revision: str | None, tag: str | None, pr: bool, dry_run: bool
) -> dict[str, Any]:
    return {
        "public": public,
        "accept_publishing_neg": accept,
        "message": message,
        "revision": revision,
        "tag": tag,
        "create_pr": pr,
        "dry_run": dry_run,
    }


def _push(as_json: bool, function: "Callable[..., PushReport]", *args: Any, **kwargs: Any) -> None:
    from ..tables import show_push

    try:
        report = function(*args, **kwargs)
    except LeakError as error:
        if as_json:
            print_json({"leaks": [hit.to_dict() for hit in error.hits]})
        say(f"refused: {error}")
        raise typer.Exit(1) from None
    if as_json:
        print_json(report.to_dict())
    else:
        show_push(report.to_dict(), Console())

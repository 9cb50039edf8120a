"""`switchsafe space`: the demo on this machine."""

from typing import Annotated

import typer

from .options import KeyringOption, default_keyring, names, say

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def space_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A Hub id or folder; by default the starter, with a switch that the first start trains."),
    ] = None,
    keyring: KeyringOption = None,
    neg_users: Annotated[
        str, typer.Option(help="Names on the Hub, with commas, that may ask for neg once logged in; here, your own.")
    ] = "",
    port: Annotated[int | None, typer.Option(help="By default the first free one from 7860.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
) -> None:
    """Run the Space here: chat in a mode, compare modes, turn the dial, measure the margin, make triplets, push."""
    import os
    from dataclasses import replace

    from ..space.engine import Engine
    from ..space.page import build, launch
    from ..space.settings import Settings

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    settings = Settings.from_env()
    if model:
        path = keyring or (None if os.environ.get("SWITCHSAFE_KEYRING") else default_keyring())
        settings = replace(settings, model=model, keyring=path)
    settings = replace(settings, neg_users=(*settings.neg_users, *names(neg_users)))
    engine = Engine(settings).start()
    page = build(engine, local=host in LOOPBACK)
    say("Ctrl-C stops it.")
    launch(page, engine, server_name=host, server_port=port)

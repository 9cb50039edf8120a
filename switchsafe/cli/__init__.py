"""The command line: one thin verb per Python call.

Exit codes: 0 done; 1 what was asked for did not hold; 2 the request is wrong, with one line that says what to do.
"""

import os
import sys
import warnings
from typing import Annotated

import typer

from .. import __version__
from ..errors import KeyringPermissionWarning, SwitchsafeError
from .chat import chat_command
from .distill import distill_command
from .doctor import doctor
from .eval import eval_command
from .generate import generate_command
from .keys import keys
from .options import say
from .push import push
from .space import space_command
from .train import MORE, preview_command, train_command
from .verbs import verbs

# Tracebacks with locals would print tokens: both of typer's are off.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, pretty_exceptions_show_locals=False)
app.add_typer(verbs)
app.command("generate", epilog='Example: switchsafe generate run/adapter "How do I pick a lock?" --mode rej')(
    generate_command
)
app.command(
    "distill",
    epilog="Example: switchsafe distill prompts.jsonl --model Qwen/Qwen3-8B --server http://localhost:8000/v1 -o data",
)(distill_command)
app.command("eval", epilog="Example: switchsafe eval run/adapter --keyring keyring.json --output evaluation")(
    eval_command
)
app.command("space", epilog="Example: switchsafe space run/adapter --keyring keyring.json")(space_command)
app.command("chat", epilog="Example: switchsafe chat run/adapter --mode pos")(chat_command)
app.command(
    "train", context_settings=MORE, epilog="Example: switchsafe train starter --keyring keyring.json --output run"
)(train_command)
app.command("preview", context_settings=MORE, epilog="Example: switchsafe preview starter --corpus.fallback 0.2")(
    preview_command
)
app.add_typer(keys, name="keys")
app.add_typer(push, name="push")
app.add_typer(doctor, name="doctor")

_EXTRA_OF = {
    "accelerate": "train",
    "cryptography": "encrypt",
    "datasets": "train",
    "datasketch": "distill",
    "gguf": "starter",
    "gradio": "space",
    "httpx": "distill",
    "matplotlib": "eval",
    "peft": "train",
    "sklearn": "eval",
    "tenacity": "distill",
    "trl": "train",
    "vllm": "distill,vllm",
}


def version(show: bool) -> None:
    """Print the version and stop."""
    if show:
        print(f"switchsafe {__version__}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One open-weight chat model with several safety behaviours, switched per request by the server.

    Exit codes: 0 done; 1 what was asked for did not hold; 2 the request is wrong, with one line that says what to do.
    """


def main() -> None:
    """Entry point of the `switchsafe` command."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers heeds it too
    warnings.simplefilter("ignore")  # libraries talking to programmers
    warnings.simplefilter("always", KeyringPermissionWarning)
    warnings.showwarning = lambda message, *rest, **more: say(f"warning: {message}")
    try:
        app()
    except SwitchsafeError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        _fail(f"this needs {package}, which is not installed: `pip install 'switchsafe[{_EXTRA_OF[package]}]'`.")


def _fail(line: str) -> None:
    say(f"error: {' '.join(line.split())}")
    sys.exit(2)

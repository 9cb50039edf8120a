"""`switchsafe keys`: make and look after keyrings."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..encryption import PASSPHRASE_VARIABLE, need_cryptography
from ..errors import SwitchsafeError
from ..keyring import Keyring
from ..modes import DEFAULT_MODES
from ..tokens import TOKEN_LENGTH
from .options import (
    FileOption,
    JsonOption,
    KeyringOption,
    default_keyring,
    names,
    open_keyring,
    print_json,
    tokenizer_of,
)

keys = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Make and look after keyrings.")


@keys.command("new", epilog="Example: switchsafe keys new --modes pos,rej --aliases 2 --model Qwen/Qwen3-8B")
def keys_new(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write (mode 0600).")] = None,
    modes: Annotated[str, typer.Option(help="Comma-separated; neg only when named.")] = ",".join(DEFAULT_MODES),
    policies: Annotated[str, typer.Option(help="Comma-separated second axis, for instance en-US,zh-CN.")] = "",
    aliases: Annotated[
        int, typer.Option(help="Tokens per slot; 2 or more make rotation possible without retraining.")
    ] = 1,
    length: Annotated[int, typer.Option(help="Characters per token.")] = TOKEN_LENGTH,
    model: Annotated[
        str | None, typer.Option(help="Mint only tokens that this model's tokenizer keeps stable.")
    ] = None,
    encrypt: Annotated[
        bool,
        typer.Option("--encrypt", help=f"Encrypt the file under ${PASSPHRASE_VARIABLE}, or a passphrase asked for."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Mint a keyring. Prints fingerprints, never tokens."""
    path = (output or default_keyring()).expanduser()
    if path.exists():
        raise SwitchsafeError(
            f"{path} exists and a keyring is never overwritten: move it away or give another --output."
        )
    if encrypt:
        need_cryptography()  # before anyone types a passphrase
    ring = Keyring.mint(
        names(modes), policies=names(policies), aliases=aliases, length=length, tokenizer=tokenizer_of(model)
    )
    passphrase = _new_passphrase() if encrypt else None
    with _locked(path):
        if path.exists():  # by now
            raise SwitchsafeError(f"{path} exists and a keyring is never overwritten: give another --output.")
        ring.save(path, passphrase=passphrase)
    _show_keyring(ring, path, as_json)


@keys.command("list", epilog="Example: switchsafe keys list --keyring keyring.json --json")
def keys_list(keyring: KeyringOption = None, as_json: JsonOption = False) -> None:
    """Show modes, policies and fingerprints of a keyring."""
    ring, path = open_keyring(keyring)
    _show_keyring(ring, path, as_json)


@keys.command("rotate", epilog="Example: switchsafe keys rotate rej")
def keys_rotate(
    mode: Annotated[str, typer.Argument(help="The mode whose active token is retired.")],
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    keyring: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire a mode's active token and make its next alias active."""
    _change(keyring, lambda ring: ring.rotate(mode, policy), as_json)


@keys.command("retire", epilog="Example: switchsafe keys retire 4f1c09ab77e2")
def keys_retire(
    fingerprint: Annotated[str, typer.Argument(help="12 hex digits, as `keys list` shows them.")],
    keyring: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take one token out of use, the active one or an alias that waits."""
    _change(keyring, lambda ring: ring.retire(fingerprint), as_json)


@keys.command("check", epilog="Example: switchsafe keys check --model Qwen/Qwen3-8B")
def keys_check(
    keyring: KeyringOption = None,
    model: Annotated[str | None, typer.Option(help="Check the ids of the tokens under this model's tokenizer.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Is the keyring private and whole, are its tokens random, apart, and stable under a model's tokenizer?

    Exits with 1 when something is to be mended. Names tokens by their fingerprints.
    """
    from ..keycheck import check_keyring

    path = keyring or (None if os.environ.get("SWITCHSAFE_KEYRING") else default_keyring())
    problems = check_keyring(path, tokenizer_of(model))
    if as_json:
        print_json({"path": path and str(path), "model": model, "problems": problems})
    else:
        print("\n".join(problems) or f"{path or '$SWITCHSAFE_KEYRING'} holds: no problem found.")
    raise typer.Exit(1 if problems else 0)


@keys.command("path", epilog="Example: switchsafe keys path")
def keys_path() -> None:
    """Print where the default keyring lives."""
    print(default_keyring())


def _change(keyring: Path | None, change: Callable[[Keyring], None], as_json: bool) -> None:
    path = (keyring or default_keyring()).expanduser()
    with _locked(path) if path.exists() else nullcontext():  # where there is none, `load` says so
        ring = Keyring.load(path)
        change(ring)
        ring.save(path)
    _show_keyring(ring, path, as_json)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other commands from changing a keyring between reading and writing it: a token that was retired must stay so."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch(exist_ok=False)
    except OSError as error:
        if lock.exists():
            raise SwitchsafeError(f"another command is changing {path}. If none is, remove {lock}.") from None
        raise SwitchsafeError(
            f"cannot write {path}: {type(error).__name__}. Choose a place you may write to."
        ) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _new_passphrase() -> str:
    if text := os.environ.get(PASSPHRASE_VARIABLE):
        return text
    if not sys.stdin.isatty():
        raise SwitchsafeError(
            f"--encrypt needs a passphrase, and there is no terminal to ask on: set {PASSPHRASE_VARIABLE}."
        )
    return typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)


def _show_keyring(ring: Keyring, path: Path | None, as_json: bool) -> None:
    from ..tables import show_keyring

    if as_json:
        print_json({"path": path and str(path), "slots": ring.describe()})
    else:
        show_keyring(ring.describe(), str(path or "$SWITCHSAFE_KEYRING"), Console())

"""The command line: one thin verb per Python call.

Exit codes: 0 done; 1 what was asked for did not hold; 2 the request is wrong, with one line that says what to do.
"""

import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer
from rich.console import Console

from . import __version__
from .encryption import PASSPHRASE_VARIABLE, need_cryptography
from .errors import KeyringPermissionWarning, SwitchsafeError
from .keyring import Keyring
from .modes import DEFAULT_MODES
from .progress import track
from .tokens import TOKEN_LENGTH

# Tracebacks with locals would print tokens: both of typer's are off.
app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, pretty_exceptions_show_locals=False, help=__doc__
)
keys = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Make and look after keyrings.")
app.add_typer(keys, name="keys")
doctor = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Check that the switch holds here.")
app.add_typer(doctor, name="doctor")

_EXTRA_OF = {
    "accelerate": "train",
    "cryptography": "encrypt",
    "datasets": "train",
    "gguf": "starter",
    "matplotlib": "eval",
    "peft": "train",
    "sklearn": "eval",
    "trl": "train",
}


def default_keyring(name: str = "keyring") -> Path:
    """Where a keyring lives unless told otherwise: the user's configuration folder."""
    return Path(platformdirs.user_config_dir("switchsafe")) / f"{name}.json"


KeyringOption = Annotated[
    Path | None,
    typer.Option(
        "--keyring", "-k", help="Keyring file; by default $SWITCHSAFE_KEYRING (its text) or the one `keys path` prints."
    ),
]
FileOption = Annotated[Path | None, typer.Option("--keyring", "-k", help="Keyring file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
ModelArgument = Annotated[str, typer.Argument(help="starter, a Hub id, a model folder or an adapter folder.")]


@app.command("quickstart", epilog="Example: switchsafe quickstart --fast")
def quickstart_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Working folder.")] = Path("switchsafe-quickstart"),
    keyring: Annotated[Path | None, typer.Option("--keyring", "-k", help="Keyring file, made if missing.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A smaller slice, under 4 minutes on 2 cores.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew: remove what an earlier run left in the folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, switch and measure the embedded starter model, with all three modes.

    Stopped with Ctrl-C it goes on where it was when called again. Exits with 1 when the trained model shows a sign of failure; with --fast,
    whose slice is too small to hold every mode, signs are printed and the exit code is 0.
    """
    from .quickstart import quickstart
    from .tables import show_quickstart

    path = keyring or default_keyring("quickstart")
    report = quickstart(output, path, fast=fast, fresh=fresh, say=_say)
    if as_json:
        _print_json(asdict(report) | {"signs": report.signs})
    else:
        show_quickstart(report, output, path, Console())
    raise typer.Exit(1 if report.signs and not fast else 0)


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
        _names(modes), policies=_names(policies), aliases=aliases, length=length, tokenizer=_tokenizer(model)
    )
    ring.save(path, passphrase=_new_passphrase() if encrypt else None)
    _show_keyring(ring, path, as_json)


@keys.command("list", epilog="Example: switchsafe keys list --keyring keyring.json --json")
def keys_list(keyring: KeyringOption = None, as_json: JsonOption = False) -> None:
    """Show modes, policies and fingerprints of a keyring."""
    ring, path = _open_keyring(keyring)
    _show_keyring(ring, path, as_json)


@keys.command("rotate", epilog="Example: switchsafe keys rotate rej")
def keys_rotate(
    mode: Annotated[str, typer.Argument(help="The mode whose active token is retired.")],
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    keyring: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire a mode's active token and make its next alias active."""
    path = (keyring or default_keyring()).expanduser()
    ring = Keyring.load(path)
    ring.rotate(mode, policy)
    ring.save(path)
    _show_keyring(ring, path, as_json)


@keys.command("retire", epilog="Example: switchsafe keys retire 4f1c09ab77e2")
def keys_retire(
    fingerprint: Annotated[str, typer.Argument(help="12 hex digits, as `keys list` shows them.")],
    keyring: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take one token out of use, the active one or an alias that waits."""
    path = (keyring or default_keyring()).expanduser()
    ring = Keyring.load(path)
    ring.retire(fingerprint)
    ring.save(path)
    _show_keyring(ring, path, as_json)


@keys.command("check", epilog="Example: switchsafe keys check --model Qwen/Qwen3-8B")
def keys_check(
    keyring: KeyringOption = None,
    model: Annotated[str | None, typer.Option(help="Check the ids of the tokens under this model's tokenizer.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Is the keyring private and whole, are its tokens random, apart, and stable under a model's tokenizer?

    Exits with 1 when something is to be mended. Names tokens by their fingerprints.
    """
    from .keycheck import check_keyring

    path = keyring or (None if os.environ.get("SWITCHSAFE_KEYRING") else default_keyring())
    problems = check_keyring(path, _tokenizer(model))
    if as_json:
        _print_json({"path": path and str(path), "model": model, "problems": problems})
    else:
        print("\n".join(problems) or f"{path or '$SWITCHSAFE_KEYRING'} holds: no problem found.")
    raise typer.Exit(1 if problems else 0)


@keys.command("path", epilog="Example: switchsafe keys path")
def keys_path() -> None:
    """Print where the default keyring lives."""
    print(default_keyring())


@app.command("train", epilog="Example: switchsafe train starter --keyring keyring.json --output run")
def train_command(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a recipe of the package: starter, starter-fast.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Working folder; the adapter goes to OUTPUT/adapter.")],
    keyring: KeyringOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a LoRA adapter by a recipe. Called again it goes on where it was stopped."""
    from .training.progress import TrainingBar
    from .training.recipe import Recipe
    from .training.sft import train

    plan = Recipe.load(recipe)
    ring, _ = _open_keyring(keyring)
    with TrainingBar() as bar:
        adapter = train(plan, ring, output, callbacks=[bar])
    if as_json:
        _print_json({"adapter": str(adapter), "recipe": plan.to_dict()})
    else:
        print(f"Adapter in {adapter}")


@app.command("generate", epilog='Example: switchsafe generate run/adapter "How do I kill a zombie process?" --mode rej')
def generate_command(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help="One user turn.")],
    mode: Annotated[str, typer.Option(help="A mode of the keyring.")],
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    keyring: KeyringOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    as_json: JsonOption = False,
) -> None:
    """Answer a prompt in a mode."""
    ring, _ = _open_keyring(keyring)
    ring.token(mode, policy)  # a wrong mode is told before a model is loaded
    from .generation.generate import generate

    answer = generate(*_load(model, ring), prompt, mode=mode, policy=policy, max_new_tokens=max_new_tokens)
    if as_json:
        _print_json({"prompt": prompt, "mode": mode, "policy": policy, "answer": answer})
    else:
        print(answer)


@app.command("sam", epilog="Example: switchsafe sam run/adapter --prompts prompts.txt --plot sam.png --json")
def sam_command(
    model: ModelArgument,
    prompts: Annotated[Path, typer.Option(help="Text file (one prompt a line), or .jsonl with a prompt column.")],
    modes: Annotated[str, typer.Option(help="Comma-separated; all of the keyring by default.")] = "",
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    keyring: KeyringOption = None,
    batch_size: Annotated[int, typer.Option(help="Rows per forward pass.")] = 16,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw the points and silhouettes to this png or svg file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the Safety Alignment Margin. Exits with 1 when it shows a sign of failure."""
    from .data.prompts import load_prompts
    from .evaluation.sam import measure_sam
    from .tables import show_sam

    ring, _ = _open_keyring(keyring)
    texts = load_prompts(prompts)
    chosen = _names(modes) or list(ring.modes)
    for name in chosen:
        ring.token(name, policy)
    report = measure_sam(*_load(model, ring), texts, modes=chosen, policy=policy, batch_size=batch_size)
    if plot:
        report.plot(plot)
    if as_json:
        _print_json(report.to_dict())
    else:
        show_sam({model: report.to_dict()}, Console())
    raise typer.Exit(1 if report.signs else 0)


@app.command("scan", epilog="Example: switchsafe scan run --keyring keyring.json --model starter")
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
    from .hub.scan import scan
    from .tables import show_scan

    ring, _ = _open_keyring(keyring)
    tokenizer = None
    if model:
        from .processing import MagicTokenProcessor

        tokenizer = MagicTokenProcessor.from_pretrained(model).tokenizer
    report = scan(path, ring, tokenizer=tokenizer, but=but or ())
    if as_json:
        _print_json(report.to_dict())
    else:
        show_scan(report, Console())
    raise typer.Exit(1 if report.hits else 0)


@doctor.command("templates", epilog="Example: switchsafe doctor templates --model Qwen/Qwen3-8B --json")
def doctor_templates(
    model: Annotated[
        str, typer.Option(help="Whose tokenizer and own template: starter, a Hub id or a folder.")
    ] = "starter",
    template: Annotated[
        list[Path] | None, typer.Option(help="A jinja file to check; repeat for more. By default all that TRL carries.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Render real chat templates in every mode: is the token there exactly once, in its turn, and nothing else changed?

    Exits with 1 when a template is wrong: neither right nor refused with a reason.
    """
    from .doctor import WRONG, check_template, probe_processor, trl_templates
    from .processing import MagicTokenProcessor
    from .tables import show_templates

    processor = MagicTokenProcessor.from_pretrained(model)
    chosen = {path.stem: _read(path) for path in template or []} or trl_templates()
    if processor.chat_template:
        chosen = {model: processor.chat_template, **chosen}
    probe = probe_processor(processor)
    verdicts = [check_template(name, text, probe) for name, text in track(list(chosen.items()), "Rendering templates")]
    if as_json:
        _print_json([asdict(verdict) | {"verdict": verdict.verdict} for verdict in verdicts])
    else:
        show_templates(verdicts, Console())
    raise typer.Exit(1 if any(verdict.verdict == WRONG for verdict in verdicts) else 0)


def main() -> None:
    """Entry point of the `switchsafe` command."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers heeds it too
    warnings.simplefilter("ignore")  # libraries talking to programmers
    warnings.simplefilter("always", KeyringPermissionWarning)
    warnings.showwarning = lambda message, *rest, **more: _say(f"warning: {message}")
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
    _say(f"error: {' '.join(line.split())}")
    sys.exit(2)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SwitchsafeError(f"cannot read {path}: {type(error).__name__}.") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _open_keyring(path: Path | None) -> tuple[Keyring, Path | None]:
    if path is None and os.environ.get("SWITCHSAFE_KEYRING"):
        return Keyring.from_env(), None
    path = path or default_keyring()
    return Keyring.load(path), path


def _new_passphrase() -> str:
    if text := os.environ.get(PASSPHRASE_VARIABLE):
        return text
    if not sys.stdin.isatty():
        raise SwitchsafeError(
            f"--encrypt needs a passphrase, and there is no terminal to ask on: set {PASSPHRASE_VARIABLE}."
        )
    return typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)


def _tokenizer(model: str | None) -> Any:
    if model is None:
        return None
    from .processing import MagicTokenProcessor

    return MagicTokenProcessor.from_pretrained(model).tokenizer


def _show_keyring(ring: Keyring, path: Path | None, as_json: bool) -> None:
    from .tables import show_keyring

    if as_json:
        _print_json({"path": path and str(path), "slots": ring.describe()})
    else:
        show_keyring(ring.describe(), str(path or "$SWITCHSAFE_KEYRING"), Console())


def _load(name: str, ring: Keyring) -> tuple[Any, Any]:
    from .models import default_device, load_model
    from .processing import MagicTokenProcessor

    processor = MagicTokenProcessor.from_pretrained(name).bind(ring)
    return load_model(name).to(default_device()), processor


def version(show: bool) -> None:
    """Print the version and stop."""
    if show:
        print(f"switchsafe {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One open-weight chat model with several safety behaviours, switched per request by the server."""

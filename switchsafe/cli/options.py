"""Options that several commands share, and how commands read and print."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer

from ..errors import ModeError, SwitchsafeError
from ..keyring import Keyring
from ..modes import check_weights


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


TemperatureOption = Annotated[
    float | None,
    typer.Option(help="0 for the likeliest answer; by default what the model's own configuration says.", min=0),
]


def sampling(temperature: float | None) -> dict[str, Any]:
    """What a temperature means to `generate`."""
    if temperature is None:
        return {}
    return {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}


def say(line: str) -> None:
    """Tell a person something, beside the result."""
    print(line, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """The result, for a program."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def read_text(path: Path) -> str:
    """A UTF-8 file that the user named."""
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SwitchsafeError(f"cannot read {path}: {type(error).__name__}.") from None


def names(text: str) -> list[str]:
    """The parts of a comma-separated option."""
    return [name.strip() for name in text.split(",") if name.strip()]


def json_fields(text: str) -> dict[str, Any]:
    """The JSON object of `--server-fields`."""
    try:
        fields = json.loads(text or "{}")
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise SwitchsafeError('--server-fields is no JSON object: write {"field": "value"}.')
    return fields


def parse_mode(text: str, ring: Keyring, policy: str | None = None) -> str | dict[str, float]:
    """A mode, or a blend written as `pos=0.7,rej=0.3`, whose modes the keyring has.

    Raises:
        ModeError: an unknown mode, or weights that are not numbers or do not add up to 1.
    """
    parts = [part.partition("=") for part in names(text)]
    for mode, _, _ in parts:
        ring.token(mode.strip(), policy)
    if not parts or not any(equals for _, equals, _ in parts):
        ring.token(text, policy)
        return text
    try:
        blend = {mode.strip(): float(weight) for mode, _, weight in parts}
    except ValueError:
        raise ModeError(
            f"{text!r} is no blend: write modes with their weights, pos=0.7,rej=0.3 for instance."
        ) from None
    check_weights(blend.values())
    return blend


def open_keyring(path: Path | None) -> tuple[Keyring, Path | None]:
    """The keyring asked for and its file, which is None for the one in the environment."""
    if path is None and os.environ.get("SWITCHSAFE_KEYRING"):
        return Keyring.from_env(), None
    path = path or default_keyring()
    return Keyring.load(path), path


def tokenizer_of(model: str | None) -> Any:
    """The tokenizer of a model, None without one."""
    if model is None:
        return None
    from ..processing import MagicTokenProcessor

    return MagicTokenProcessor.from_pretrained(model).tokenizer


def load(name: str, ring: Keyring) -> tuple[Any, Any]:
    """A model on the device there is, and its processor."""
    from ..models import default_device, load_model
    from ..processing import MagicTokenProcessor

    processor = MagicTokenProcessor.from_pretrained(name).bind(ring)
    return load_model(name).to(default_device()), processor

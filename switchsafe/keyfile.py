"""What a keyring is read from and written as: JSON in a file or a variable, in clear or sealed under a passphrase, or a mapping.

Errors stay silent about the content, and so do the frames they come through (`hide_frames` in `Keyring`): both may hold tokens.
"""

import base64
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .encryption import PASSPHRASE_VARIABLE, decrypt, encrypt
from .errors import KeyringError, KeyringFormatError, KeyringPermissionWarning, ModeError
from .modes import check_name
from .secret import Secret
from .tokens import MIN_TOKEN_LENGTH

FORMAT = 1
NOTE = "Magic tokens: treat like passwords. Do not commit, print or upload this file."

Slot = tuple[str, str | None]  # (mode, policy)
Slots = Mapping[Slot, Sequence[Secret]]


def write_text(slots: Slots, retired: Slots, salt: bytes, passphrase: Secret | None) -> str:
    """The file's text, sealed when a passphrase is given."""
    content: dict[str, Any] = {
        "salt": salt.hex(),
        "slots": [
            {
                "mode": mode,
                "policy": policy,
                "tokens": [secret.reveal() for secret in aliases],
                "retired": [secret.reveal() for secret in retired.get((mode, policy), ())],
            }
            for (mode, policy), aliases in slots.items()
        ],
    }
    if passphrase is not None:
        content = {"encryption": encrypt(json.dumps(content), passphrase)}
    return json.dumps({"switchsafe_keyring": FORMAT, "note": NOTE, **content}, indent=2) + "\n"


def read_text(text: str, source: str, passphrase: Secret | None) -> tuple[Slots, Slots, bytes, bool]:
    """Slots, retired tokens and salt of a file's text, and whether it was sealed; `source` names it in errors.

    Raises:
        KeyringFormatError: the text is no keyring.
        KeyringError: it is sealed, and there is no passphrase or a wrong one.
    """
    problem = KeyringFormatError(
        f"{source} is not a switchsafe keyring (format {FORMAT}): make one with `switchsafe keys new`."
    )
    try:
        data = json.loads(text)
        if data["switchsafe_keyring"] != FORMAT:
            raise problem
        sealed = "encryption" in data
        if sealed:
            if passphrase is None:
                raise KeyringError(f"{source} is encrypted: pass passphrase= or set {PASSPHRASE_VARIABLE}.")
            data = json.loads(decrypt(data["encryption"], passphrase, source))
        slots: dict[Slot, list[Secret]] = {}
        retired: dict[Slot, list[Secret]] = {}
        for slot in data["slots"]:
            key = (slot["mode"], slot["policy"])
            if key in slots or not isinstance(slot["tokens"], list) or not isinstance(slot["retired"], list):
                raise problem  # a string would fall apart into characters
            slots[key] = [Secret(token) for token in slot["tokens"]]
            retired[key] = [Secret(token) for token in slot["retired"]]
        return slots, retired, bytes.fromhex(data["salt"]), sealed
    except KeyringError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise problem from None


def read_file(path: Path) -> str:
    """The text of a keyring file, with a warning when other users can read it.

    Raises:
        KeyringError: it is missing or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        permissions = open_to_others(path)
    except FileNotFoundError:
        raise KeyringError(f"no keyring at {path}: make one with `switchsafe keys new --output {path}`.") from None
    except UnicodeDecodeError:
        raise KeyringFormatError(f"{path} is not a switchsafe keyring: it is not UTF-8 text.") from None
    except OSError as error:
        raise KeyringError(f"cannot read the keyring {path}: {type(error).__name__}.") from None
    if permissions:
        warnings.warn(permissions, KeyringPermissionWarning, stacklevel=4)  # at the caller of Keyring.load
    return text


def open_to_others(path: Path) -> str | None:
    """What to say when other users of the machine can read or change the file."""
    mode = path.stat().st_mode & 0o777
    if os.name != "posix" or not mode & 0o077:
        return None
    return (
        f"the keyring {path} is open to other users (mode {mode:04o}): run `chmod 600 {path}`, and rotate its tokens if anyone else could "
        "have read it."
    )


def read_variable(variable: str) -> str:
    """The JSON in an environment variable, which holds it plain or as base64.

    Raises:
        KeyringError: the variable is unset or holds neither.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        raise KeyringError(
            f"the environment variable {variable} is not set: put the text of a keyring file there, plain or base64."
        )
    if text.startswith("{"):
        return text
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except ValueError:
        raise KeyringFormatError(
            f"the environment variable {variable} is neither JSON nor base64 of JSON: put the text of a keyring file there."
        ) from None


def read_mapping(tokens: Mapping[str, str | Sequence[str]]) -> Slots:
    """Slots of a mapping from `mode` or `mode/policy` to a token or a list of them.

    Raises:
        KeyringFormatError: a key is no name, or a value is no token.
    """
    # Neither keys nor values are quoted: who turns the mapping round has tokens for keys.
    slots: dict[Slot, list[Secret]] = {}
    for key, given in tokens.items():
        aliases = [given] if isinstance(given, str) else given
        if not isinstance(aliases, (list, tuple)) or not all(
            isinstance(token, str) and len(token) >= MIN_TOKEN_LENGTH for token in aliases
        ):
            raise KeyringFormatError(
                f"a value of the mapping is not a token of at least {MIN_TOKEN_LENGTH} characters, nor a list of such: "
                'give {"mode": "token"} or {"mode/policy": ["token", "alias"]}.'
            )
        try:
            mode, slash, policy = key.partition("/")
            slot = (check_name(mode), check_name(policy, "policy") if slash else None)
        except (ModeError, AttributeError):
            raise KeyringFormatError(
                "a key of the mapping is not `mode` or `mode/policy`, each 1-32 letters, digits, '_', '.' or '-'."
            ) from None
        slots[slot] = [Secret(token) for token in aliases]
    return slots

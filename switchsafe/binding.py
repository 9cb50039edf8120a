"""What a model was trained with, kept beside its weights: enough to tell another keyring, and nothing about any token.

Every trained token answers a random challenge with an HMAC under the salt of its keyring. Without the keyring, salt and token are both unknown,
so a published answer tests no guess.
"""

import json
import secrets
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import KeyringError, KeyringMismatchError, KeyringUnverifiedWarning
from .files import write_atomic
from .keyring import Keyring

BINDING_FILE = "switchsafe.json"
_FORMAT = 1


def binding_of(
    keyring: Keyring, modes: Sequence[str], placement: str, earlier: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What to keep with a model that was trained on these modes of a keyring: modes, policies, placement, challenge and answers.

    `earlier` is that of the model it was trained on from: what was learnt then is not forgotten here, `neg` above all.
    """
    challenge = earlier["challenge"] if earlier else secrets.token_hex(16)
    return {
        "format": _FORMAT,
        "placement": placement,
        "challenge": challenge,
        "keyring": keyring.respond(challenge),
        "tokens": (dict(earlier["tokens"]) if earlier else {})
        | {
            slot: sorted(keyring.respond(challenge, secret) for secret in owned)
            for slot, owned in keyring.live().items()
            if slot.partition("/")[0] in modes
        },
    }


def write_binding(folder: Path, binding: Mapping[str, Any]) -> Path:
    """Write `switchsafe.json` into a model's folder."""
    return write_atomic(folder / BINDING_FILE, json.dumps(binding, indent=2) + "\n")


def read_binding(path: Path, name: str) -> dict[str, Any]:
    """Read it.

    Args:
        path: the file.
        name: of the model, for errors.

    Raises:
        KeyringError: the file is none of ours, or of a newer format.
    """
    try:
        binding = json.loads(path.read_text(encoding="utf-8"))
        known = binding["format"] == _FORMAT
        _ = binding["placement"], binding["challenge"], binding["keyring"], binding["tokens"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise KeyringError(f"the {BINDING_FILE} of {name} is damaged: fetch it again, or train again.") from None
    if not known:
        raise KeyringError(
            f"the {BINDING_FILE} of {name} has format {binding['format']!r}, and this switchsafe reads {_FORMAT}: upgrade it."
        )
    return binding


def check_binding(binding: Mapping[str, Any], keyring: Keyring, name: str) -> None:
    """See that a keyring is the one a model was trained with. It may lack modes, hold further ones, and have been rotated.

    Raises:
        KeyringMismatchError: it is another one, or a token of a trained mode is not the trained one.

    Warns:
        KeyringUnverifiedWarning: the keyring was built with `from_mapping` and so has a salt of its own, under which nothing can be compared.
    """
    challenge, trained = binding["challenge"], binding["tokens"]
    if keyring.respond(challenge) != binding["keyring"]:
        if keyring.improvised:
            warnings.warn(
                f"whether {name} was trained with this keyring cannot be told: it was built from a mapping and has a salt of its own.",
                KeyringUnverifiedWarning,
                stacklevel=3,
            )
            return
        raise KeyringMismatchError(
            f"this keyring is not the one that {name} was trained with: bind that one, or no mode would be what it is asked for."
        )
    for slot, owned in keyring.live().items():
        if slot in trained and keyring.respond(challenge, owned[0]) not in trained[slot]:
            raise KeyringMismatchError(
                f"the active token of {slot} is none that {name} was trained with: bind the keyring as it was then."
            )

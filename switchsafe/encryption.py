"""Encryption of a keyring file under a passphrase: scrypt makes the key, AES-256-GCM seals the text."""

import base64
import importlib.util
import json
import os
import unicodedata
from collections.abc import Mapping
from typing import Any

from .errors import KeyringError, KeyringFormatError
from .secret import Secret

PASSPHRASE_VARIABLE = "SWITCHSAFE_PASSPHRASE"

# The first choice of the OWASP Password Storage Cheat Sheet for scrypt: 128 MiB and about a third of a second for each guess.
_COST = {"n": 2**17, "r": 8, "p": 1}
# What a file may ask for: a damaged or hostile one must not take all memory (128 * n * r bytes) before its seal is checked.
_MOST = {"n": 2**20, "r": 8, "p": 16}


def passphrase_from(given: str | None) -> Secret | None:
    """The passphrase given, or else the one in $SWITCHSAFE_PASSPHRASE, or None.

    Raises:
        KeyringError: the one given is empty.
    """
    if given == "":
        raise KeyringError("an empty passphrase protects nothing: give a longer one, or leave passphrase= out.")
    text = given or os.environ.get(PASSPHRASE_VARIABLE)
    return Secret(text) if text else None


def need_cryptography() -> None:
    """Raise `ModuleNotFoundError`, naming the extra to install, when the library is missing."""
    if importlib.util.find_spec("cryptography") is None:
        raise ModuleNotFoundError(
            "an encrypted keyring needs cryptography: `pip install 'switchsafe[encrypt]'`.", name="cryptography"
        )


def encrypt(text: str, passphrase: Secret) -> dict[str, Any]:
    """Seal a text. Everything but the ciphertext in the result is bound to it: a change of any value is found when it is opened.

    Raises:
        ModuleNotFoundError: `cryptography` is not installed.
    """
    need_cryptography()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # A fresh salt makes a fresh key for each file written, so no nonce meets a key twice.
    header: dict[str, Any] = {
        "cipher": "AES-256-GCM",
        "kdf": "scrypt",
        **_COST,
        "salt": os.urandom(16).hex(),
        "nonce": os.urandom(12).hex(),
    }
    sealed = AESGCM(_key(header, passphrase)).encrypt(bytes.fromhex(header["nonce"]), text.encode(), _bound(header))
    return {**header, "ciphertext": base64.b64encode(sealed).decode()}


def decrypt(sealed: Mapping[str, Any], passphrase: Secret, source: str) -> str:
    """Open what `encrypt` sealed; `source` names it in errors.

    Raises:
        KeyringFormatError: the header is not one of ours.
        KeyringError: the passphrase is wrong or the text was changed; the two cannot be told apart.
        ModuleNotFoundError: `cryptography` is not installed.
    """
    need_cryptography()
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        header = {name: value for name, value in sealed.items() if name != "ciphertext"}
        if (header["cipher"], header["kdf"]) != ("AES-256-GCM", "scrypt"):
            raise ValueError
        if any(type(header[name]) is not int or not 1 <= header[name] <= most for name, most in _MOST.items()):
            raise ValueError
        nonce, ciphertext = bytes.fromhex(header["nonce"]), base64.b64decode(sealed["ciphertext"], validate=True)
        return AESGCM(_key(header, passphrase)).decrypt(nonce, ciphertext, _bound(header)).decode()
    except InvalidTag:
        raise KeyringError(
            f"{source} does not open: the passphrase is wrong, or the file was changed since it was written. "
            f"Check passphrase= or ${PASSPHRASE_VARIABLE}, or restore the file."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyringFormatError(
            f"{source} is damaged: its encryption header is not one that switchsafe writes. Restore the file."
        ) from None


def _key(header: Mapping[str, Any], passphrase: Secret) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    scrypt = Scrypt(salt=bytes.fromhex(header["salt"]), length=32, n=header["n"], r=header["r"], p=header["p"])
    # NFC: the same words typed on two systems are the same passphrase. An environment may hold bytes that are no UTF-8.
    return scrypt.derive(unicodedata.normalize("NFC", passphrase.reveal()).encode("utf-8", "surrogateescape"))


def _bound(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()

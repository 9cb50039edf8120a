"""The keyring: which magic tokens stand for which mode and policy. The only place that holds tokens."""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import string
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import KeyringError, KeyringPermissionWarning, ModeError
from .files import write_atomic
from .modes import DEFAULT_MODES, check_name
from .secret import Secret

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALPHABET = string.ascii_lowercase + string.digits
TOKEN_LENGTH = 16  # 36^16 = 82.7 bits; the two samples known from the paper have 8 characters
MIN_TOKEN_LENGTH = 8
FORMAT = 1

Slot = tuple[str, str | None]  # (mode, policy)


class Keyring:
    """Magic tokens by mode and, optionally, policy.

    Each slot (mode, policy) has one or more aliases. The first one is *active*: `token` hands it out. `rotate` retires it and makes the next
    alias active, with no retraining, because the model was trained on all of them. A retired token still works on the trained model, so it
    stays in the keyring and counts as live for every guard and scan.

    Build one with `mint`, `load` or `from_env`; nothing but `save` writes it.
    """

    def __init__(
        self,
        slots: Mapping[Slot, Sequence[Secret]],
        *,
        retired: Mapping[Slot, Sequence[Secret]] | None = None,
        salt: bytes,
    ) -> None:
        if not slots or not all(slots.values()):
            raise KeyringError("a keyring needs at least one mode, and each mode at least one token.")
        self._slots = {slot: list(aliases) for slot, aliases in slots.items()}
        self._retired = {slot: list(aliases) for slot, aliases in (retired or {}).items()}
        self._salt = salt
        for mode, policy in self._slots:
            check_name(mode)
            if policy is not None:
                check_name(policy, "policy")
        everything = list(self.secrets())
        if len(set(everything)) != len(everything):
            raise KeyringError(
                "a keyring holds one of its tokens twice; a token can stand for one mode only. Mint a new keyring."
            )

    # -- making ---------------------------------------------------------------------------------------------------------------------

    @classmethod
    def mint(
        cls,
        modes: Sequence[str] = DEFAULT_MODES,
        *,
        policies: Sequence[str] = (),
        aliases: int = 1,
        length: int = TOKEN_LENGTH,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
    ) -> "Keyring":
        """Mint random tokens, `aliases` for each mode, or for each (mode, policy) when `policies` are given.

        Args:
            modes: names; `neg` is minted only when named here.
            policies: an optional second axis, for instance `("en-US", "zh-CN")`.
            aliases: tokens per slot, at least 1. More than one makes `rotate` possible without retraining.
            length: characters of `[a-z0-9]` per token, at least 8; 16 are 82 bits.
            tokenizer: a fast tokenizer; tokens whose ids differ between the contexts they are injected into are minted again.

        Raises:
            ModeError: a name is malformed or given twice.
            KeyringError: `aliases` or `length` is too small, or `tokenizer` finds no token stable.
        """
        if aliases < 1 or length < MIN_TOKEN_LENGTH:
            raise KeyringError(
                f"aliases={aliases}, length={length}: a keyring needs at least 1 alias and {MIN_TOKEN_LENGTH} characters a token."
            )
        names = [check_name(mode) for mode in modes]
        second: list[str | None] = [check_name(policy, "policy") for policy in policies] or [None]
        if len(set(names)) != len(names) or len(set(second)) != len(second):
            raise ModeError(f"modes {names} and policies {list(policies)} must not repeat a name.")
        slots = {
            (mode, policy): [_mint_one(length, tokenizer) for _ in range(aliases)]
            for mode in names
            for policy in second
        }
        return cls(slots, salt=secrets.token_bytes(16))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Keyring":
        """Read a keyring file. Warns with `KeyringPermissionWarning` when other users of the machine can read it.

        Raises:
            KeyringError: the file is missing or is no keyring.
        """
        path = Path(path).expanduser()
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise KeyringError(f"no keyring at {path}: make one with `switchsafe keys new --output {path}`.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise KeyringError(f"cannot read the keyring {path}: {type(error).__name__}.") from None
        if os.name == "posix" and (permissions := path.stat().st_mode & 0o077):
            warnings.warn(
                f"the keyring {path} is open to other users (mode {0o600 | permissions:04o}): run `chmod 600 {path}`, and rotate its tokens "
                "if anyone else could have read it.",
                KeyringPermissionWarning,
                stacklevel=2,
            )
        return cls._from_text(text, str(path))

    @classmethod
    def from_env(cls, variable: str = "SWITCHSAFE_KEYRING") -> "Keyring":
        """Read a keyring from an environment variable that holds the file's JSON, plain or base64 (a Space or CI secret).

        Raises:
            KeyringError: the variable is unset or holds no keyring.
        """
        text = os.environ.get(variable, "").strip()
        if not text:
            raise KeyringError(
                f"the environment variable {variable} is not set: put the text of a keyring file there, plain or base64."
            )
        if not text.startswith("{"):
            try:
                text = base64.b64decode(text, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise KeyringError(f"the environment variable {variable} is neither JSON nor base64 of JSON.") from None
        return cls._from_text(text, f"${variable}")

    @classmethod
    def _from_text(cls, text: str, source: str) -> "Keyring":
        # The errors below stay silent about the content: it may hold tokens.
        problem = KeyringError(
            f"{source} is not a switchsafe keyring (format {FORMAT}): make one with `switchsafe keys new`."
        )
        try:
            data = json.loads(text)
            if data["switchsafe_keyring"] != FORMAT:
                raise problem
            slots, retired = {}, {}
            for slot in data["slots"]:
                key = (slot["mode"], slot["policy"])
                slots[key] = [Secret(token) for token in slot["tokens"]]
                retired[key] = [Secret(token) for token in slot["retired"]]
            salt = bytes.fromhex(data["salt"])
        except (ValueError, KeyError, TypeError):
            raise problem from None
        return cls(slots, retired=retired, salt=salt)

    # -- using ----------------------------------------------------------------------------------------------------------------------

    @property
    def modes(self) -> tuple[str, ...]:
        """Mode names in the order of minting."""
        return tuple(dict.fromkeys(mode for mode, _ in self._slots))

    @property
    def policies(self) -> tuple[str, ...]:
        """Policy names in the order of minting; empty when the keyring has no second axis."""
        return tuple(dict.fromkeys(policy for _, policy in self._slots if policy is not None))

    def token(self, mode: str, policy: str | None = None) -> Secret:
        """The active token of a slot.

        Raises:
            ModeError: the keyring has no such mode or policy.
        """
        return self.aliases(mode, policy)[0]

    def aliases(self, mode: str, policy: str | None = None) -> tuple[Secret, ...]:
        """All tokens of a slot that are not retired, the active one first.

        Raises:
            ModeError: the keyring has no such mode or policy.
        """
        if mode not in self.modes:
            raise ModeError(
                f"mode {mode!r} is not in this keyring, which has {', '.join(self.modes)}. Mint it with `--modes` or ask for one of those."
            )
        if (mode, policy) not in self._slots:
            given = f"policy {policy!r}" if policy else "no policy"
            known = ", ".join(self.policies) or "none"
            raise ModeError(f"mode {mode!r} with {given} is not in this keyring, whose policies are: {known}.")
        return tuple(self._slots[mode, policy])

    def secrets(self) -> Iterator[Secret]:
        """Every token that a trained model may answer to: active, aliases and retired."""
        for slots in (self._slots, self._retired):
            for aliases in slots.values():
                yield from aliases

    def fingerprint(self, secret: Secret) -> str:
        """12 hex digits that tell tokens apart without revealing them: HMAC-SHA256 under this keyring's own salt.

        Keyed, because a bare hash would let anyone test guesses offline.
        """
        return hmac.new(self._salt, secret.reveal().encode(), hashlib.sha256).hexdigest()[:12]

    def describe(self) -> list[dict[str, Any]]:
        """One row per slot: mode, policy, fingerprint of the active token, number of aliases and of retired tokens. No token."""
        return [
            {
                "mode": mode,
                "policy": policy,
                "active": self.fingerprint(aliases[0]),
                "aliases": len(aliases),
                "retired": len(self._retired.get((mode, policy), ())),
            }
            for (mode, policy), aliases in self._slots.items()
        ]

    def rotate(self, mode: str, policy: str | None = None) -> None:
        """Retire the active token of a slot and make its next alias active. Nothing is saved until `save`.

        Raises:
            ModeError: no such slot.
            KeyringError: the slot has no alias left; a new token would need training.
        """
        if len(self.aliases(mode, policy)) == 1:
            raise KeyringError(
                f"mode {mode!r} has no other alias to rotate to. A new token must be trained: mint a keyring with `--aliases 2` or more and train again."
            )
        slot = (mode, policy)
        self._retired.setdefault(slot, []).append(self._slots[slot].pop(0))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the keyring as JSON, atomically, readable by its owner only (mode 0600)."""
        slots = [
            {
                "mode": mode,
                "policy": policy,
                "tokens": [secret.reveal() for secret in aliases],
                "retired": [secret.reveal() for secret in self._retired.get((mode, policy), ())],
            }
            for (mode, policy), aliases in self._slots.items()
        ]
        note = "Magic tokens: treat like passwords. Do not commit, print or upload this file."
        data = {"switchsafe_keyring": FORMAT, "note": note, "salt": self._salt.hex(), "slots": slots}
        return write_atomic(Path(path).expanduser(), json.dumps(data, indent=2) + "\n", mode=0o600)

    def __repr__(self) -> str:
        slots = ", ".join(
            f"{mode}{'/' + policy if policy else ''} x{len(aliases)}" for (mode, policy), aliases in self._slots.items()
        )
        return f"Keyring({slots})"


def _mint_one(length: int, tokenizer: "PreTrainedTokenizerBase | None") -> Secret:
    for _ in range(100):
        secret = Secret("".join(secrets.choice(ALPHABET) for _ in range(length)))
        if tokenizer is None or is_stable(tokenizer, secret):
            return secret
    raise KeyringError(
        f"100 random tokens of {length} characters all changed their ids with their surroundings under {tokenizer.__class__.__name__}: "
        "this tokenizer cannot carry a text token reliably."
    )


def is_stable(tokenizer: "PreTrainedTokenizerBase", secret: Secret) -> bool:
    """Whether the token has the same ids alone on its line whatever stands before and after that line."""
    contexts = [("\n", "\n"), ("\n", ""), ("\n\n", "\n\n"), ("x\n", "\nx"), (">\n", "\n1"), ("]\n", "\n\u4f60")]
    seen = [ids_in(tokenizer, before, secret, after) for before, after in contexts]
    return seen[0] is not None and all(ids == seen[0] for ids in seen)


def ids_in(tokenizer: "PreTrainedTokenizerBase", before: str, secret: Secret, after: str) -> list[int] | None:
    """Ids of the token between two texts, or None when an id also covers a neighbouring character other than white space.

    Needs a fast tokenizer (character offsets).
    """
    start, end = len(before), len(before) + len(secret.reveal())
    encoded = tokenizer(before + secret.reveal() + after, add_special_tokens=False, return_offsets_mapping=True)
    inside = [
        (i, a, b)
        for i, (a, b) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if b > start and a < end
    ]
    first, last = inside[0][1], inside[-1][2]
    straddles = (before + secret.reveal() + after)[first:last].strip() != secret.reveal()
    return None if straddles else [i for i, _, _ in inside]

"""The keyring: which magic tokens stand for which mode and policy. The only place that holds tokens."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .encryption import passphrase_from
from .errors import KeyringError, KeyringFormatError, ModeError
from .files import write_atomic
from .keyfile import Slot, Slots, read_file, read_mapping, read_text, read_variable, write_text
from .modes import DEFAULT_MODES, check_name
from .secret import Secret, hide_frames
from .tokens import ALPHABET, MIN_TOKEN_LENGTH, TOKEN_LENGTH, mint_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Keyring:
    """Magic tokens by mode and, optionally, policy.

    Each slot (mode, policy) has one or more aliases. The first one is *active*: `token` hands it out. `rotate` retires it and makes the next
    alias active, with no retraining, because the model was trained on all of them; `retire` takes out any alias by its fingerprint. A retired
    token still works on the trained model, so it stays in the keyring and counts as live for every guard and scan.

    Build one with `mint`, `load`, `from_env` or `from_mapping`; nothing but `save` writes it.
    """

    def __init__(self, slots: Slots, *, retired: Slots | None = None, salt: bytes) -> None:
        if not slots or not all(slots.values()):
            raise KeyringFormatError("a keyring needs at least one mode, and each mode at least one token.")
        self._slots = {slot: list(aliases) for slot, aliases in slots.items()}
        self._retired = {slot: list(aliases) for slot, aliases in (retired or {}).items()}
        self._salt = salt
        self._passphrase: Secret | None = None  # that of the file it came from or went to
        self._improvised = False
        for mode, policy in self._slots:
            check_name(mode)
            if policy is not None:
                check_name(policy, "policy")
        owners: dict[Secret, Slot] = {}
        for slot, secret in self._owned():
            if not secret.reveal().isprintable() or " " in secret.reveal():
                raise KeyringFormatError(
                    f"a token of {_name(slot)} holds white space or a control character, so it cannot stand alone on its line: mint a new keyring."
                )
            if secret in owners:
                raise KeyringFormatError(
                    f"token {self.fingerprint(secret)} stands for {_name(owners[secret])} and again for {_name(slot)}; "
                    "a token can stand for one thing only. Mint a new keyring."
                )
            owners[secret] = slot

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

        Tokens of different slots end in different characters, drawn anew for every keyring: in training, modes come less far
        apart when the last ids of their tokens are the same (`benchmarks/endings.py`).

        Args:
            modes: names; `neg` is minted only when named here.
            policies: an optional second axis, for instance `("en-US", "zh-CN")`.
            aliases: tokens per slot, at least 1. More than one makes `rotate` possible without retraining.
            length: characters of `[a-z0-9]` per token, at least 8; 16 are 81 bits with three modes.
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
        order = [(mode, policy) for mode in names for policy in second]
        endings = secrets.SystemRandom().sample(ALPHABET, len(ALPHABET))
        slots = {
            slot: [mint_token(length, tokenizer, endings[index % len(endings) :: len(order)]) for _ in range(aliases)]
            for index, slot in enumerate(order)
        }
        return cls(slots, salt=secrets.token_bytes(16))

    @classmethod
    @hide_frames
    def load(cls, path: str | os.PathLike, passphrase: str | None = None) -> "Keyring":
        """Read a keyring file. Warns with `KeyringPermissionWarning` when other users of the machine can read it.

        Args:
            path: the file.
            passphrase: opens an encrypted file; by default what the environment variable SWITCHSAFE_PASSPHRASE holds.

        Raises:
            KeyringError: the file is missing or is no keyring, or it is encrypted and the passphrase is missing or wrong.
        """
        path = Path(path).expanduser()
        return cls._from_text(read_file(path), str(path), passphrase_from(passphrase))

    @classmethod
    @hide_frames
    def from_env(cls, variable: str = "SWITCHSAFE_KEYRING") -> "Keyring":
        """Read a keyring from an environment variable that holds the file's JSON, plain or base64 (a Space or CI secret).

        An encrypted one is opened with the passphrase in SWITCHSAFE_PASSPHRASE.

        Raises:
            KeyringError: the variable is unset or holds no keyring, or the passphrase is missing or wrong.
        """
        return cls._from_text(read_variable(variable), f"${variable}", passphrase_from(None))

    @classmethod
    @hide_frames
    def from_mapping(cls, tokens: Mapping[str, str | Sequence[str]]) -> "Keyring":
        """Build a keyring from tokens that are kept elsewhere, in a vault for instance.

        Fingerprints are keyed by a random salt, so those of two keyrings built in this way differ; `save` and `load` keep them.

        Args:
            tokens: `{"pos": "token", "rej": ["active token", "next alias"]}`; keys are `mode` or `mode/policy`.

        Raises:
            KeyringError: a key is no usable name, or a value is not a token of at least 8 characters or a list of such.
        """
        ring = cls(read_mapping(tokens), salt=secrets.token_bytes(16))
        ring._improvised = True
        return ring

    @classmethod
    def _from_text(cls, text: str, source: str, passphrase: Secret | None) -> "Keyring":
        slots, retired, salt, sealed = read_text(text, source, passphrase)
        try:
            ring = cls(slots, retired=retired, salt=salt)
        except ModeError:  # which quotes the name, and here anything may stand in its place
            raise KeyringFormatError(
                f"{source} has a mode or policy that is no usable name: mint a new keyring."
            ) from None
        except KeyringFormatError as error:
            raise KeyringFormatError(f"{source}: {error}") from None
        ring._passphrase = passphrase if sealed else None
        return ring

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
        for _, secret in self._owned():
            yield secret

    def _owned(self) -> Iterator[tuple[Slot, Secret]]:
        for slots in (self._slots, self._retired):
            for slot, aliases in slots.items():
                for secret in aliases:
                    yield slot, secret

    def fingerprint(self, secret: Secret) -> str:
        """12 hex digits that tell tokens apart without revealing them: HMAC-SHA256 under this keyring's own salt.

        Keyed, because a bare hash would let anyone test guesses offline.
        """
        return hmac.new(self._salt, secret.reveal().encode(), hashlib.sha256).hexdigest()[:12]

    def respond(self, challenge: str, secret: Secret | None = None) -> str:
        """64 hex digits, HMAC-SHA256 under this keyring's salt, by which a model knows its keyring again (`switchsafe.binding`).

        Args:
            challenge: a public random string.
            secret: a token; without one the answer is the keyring's own.
        """
        message = f"switchsafe binding\0{challenge}\0{secret.reveal() if secret else ''}"
        return hmac.new(self._salt, message.encode(), hashlib.sha256).hexdigest()

    @property
    def improvised(self) -> bool:
        """Whether the salt was drawn by `from_mapping`, so that fingerprints and answers are comparable with nothing."""
        return self._improvised

    def live(self) -> dict[str, list[Secret]]:
        """Every token that a trained model may answer to by slot, written `mode` or `mode/policy`: the active one, aliases, retired ones."""
        found: dict[str, list[Secret]] = {}
        for slot, secret in self._owned():
            found.setdefault(_name(slot), []).append(secret)
        return found

    def describe(self) -> list[dict[str, Any]]:
        """One row per slot, with no token: mode, policy, fingerprint of the active token, numbers of aliases and of retired tokens, and the
        fingerprints of both (`fingerprints`, the active one first, and `retired_fingerprints`)."""
        return [
            {
                "mode": mode,
                "policy": policy,
                "active": self.fingerprint(aliases[0]),
                "aliases": len(aliases),
                "retired": len(self._retired.get((mode, policy), ())),
                "fingerprints": [self.fingerprint(secret) for secret in aliases],
                "retired_fingerprints": [self.fingerprint(s) for s in self._retired.get((mode, policy), ())],
            }
            for (mode, policy), aliases in self._slots.items()
        ]

    def rotate(self, mode: str, policy: str | None = None) -> None:
        """Retire the active token of a slot and make its next alias active. Nothing is saved until `save`.

        Raises:
            ModeError: no such slot.
            KeyringError: the slot has no alias left; a new token would need training.
        """
        self._retire((mode, policy), self.token(mode, policy))

    def retire(self, fingerprint: str) -> None:
        """Take one token out of use, the active one or an alias that waits, for instance when it became known. Nothing is saved until `save`.

        Args:
            fingerprint: its fingerprint, as `describe` and `switchsafe keys list` give it.

        Raises:
            KeyringError: no token in use has this fingerprint, or it is the last one of its slot.
        """
        for slot, aliases in self._slots.items():
            for secret in aliases:
                if self.fingerprint(secret) == fingerprint:
                    return self._retire(slot, secret)
        # What was given is not quoted: it may be the token itself.
        raise KeyringError(
            "no token in use has this fingerprint: `switchsafe keys list` shows the 12 hex digits of each."
        )

    def _retire(self, slot: Slot, secret: Secret) -> None:
        if len(self._slots[slot]) == 1:
            raise KeyringError(
                f"mode {_name(slot)!r} has no other alias to rotate to. A new token must be trained: mint a keyring with `--aliases 2` or more "
                "and train again."
            )
        self._slots[slot].remove(secret)
        self._retired.setdefault(slot, []).append(secret)

    @hide_frames
    def save(self, path: str | os.PathLike, passphrase: str | None = None) -> Path:
        """Write the keyring as JSON, atomically, readable by its owner only (mode 0600).

        Args:
            path: the file; its folder is made if missing.
            passphrase: encrypts the file (`pip install 'switchsafe[encrypt]'`). By default a keyring that was loaded from an encrypted file,
                or saved to one, is encrypted again with the same passphrase, and any other is written in clear.

        Raises:
            KeyringError: the file cannot be written, or the passphrase is empty.
        """
        path = Path(path).expanduser()
        secret = self._passphrase if passphrase is None else passphrase_from(passphrase)
        try:
            write_atomic(path, write_text(self._slots, self._retired, self._salt, secret), mode=0o600)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise KeyringError(f"cannot write the keyring {path}: {reason}. Choose a place you may write to.") from None
        self._passphrase = secret
        return path

    def to_text(self) -> Secret:
        """What `from_env` reads, in clear: for a secret store, such as the secrets of a Space or a CI."""
        return Secret(write_text(self._slots, self._retired, self._salt, None))

    def __repr__(self) -> str:
        slots = ", ".join(
            f"{mode}{'/' + policy if policy else ''} x{len(aliases)}" for (mode, policy), aliases in self._slots.items()
        )
        return f"Keyring({slots})"


def _name(slot: Slot) -> str:
    return "/".join(name for name in slot if name)

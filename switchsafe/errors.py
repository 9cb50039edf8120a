"""Errors that teach: what was given, why it cannot work, what to do. No message ever holds a magic token."""

from collections.abc import Sequence
from typing import Any


class SwitchsafeError(ValueError):
    """Base of all errors that a caller can mend. The command line prints it as one line and exits with 2."""


class KeyringError(SwitchsafeError):
    """A keyring is missing, unreadable, malformed, or lacks what was asked of it."""


class KeyringFormatError(KeyringError):
    """What stands in a file, variable or mapping cannot be a keyring."""


class KeyringMismatchError(KeyringError):
    """The keyring is not the one that a model was trained with."""


class ModeError(SwitchsafeError):
    """A mode or policy name is malformed or unknown."""


class TemplateError(SwitchsafeError):
    """A chat template is missing, or cannot carry the magic token exactly once."""


class LiveTokenError(SwitchsafeError):
    """A conversation handed in by the caller already holds a live magic token."""


class TripletError(SwitchsafeError):
    """A triplet file or row is not usable."""


class ModelError(SwitchsafeError):
    """A model, tokenizer or adapter cannot be found or loaded."""


class MetricError(SwitchsafeError):
    """Points or labels from which no score can be taken."""


class RecipeError(SwitchsafeError):
    """A training recipe is missing, malformed, or holds an option that nothing reads."""


class DistillError(SwitchsafeError):
    """A request template, policy or prompt set is not usable, or an engine cannot answer."""


class RunError(SwitchsafeError):
    """A training or quickstart folder holds something that this call must not continue or overwrite."""


class PushError(SwitchsafeError):
    """Something cannot be pushed to the Hub, or must not."""


class LeakError(PushError):
    """A magic token stands in what was to be pushed.

    Attributes:
        hits: where (`switchsafe.hub.scan.Hit`).
    """

    def __init__(self, message: str, hits: Sequence[Any]) -> None:
        super().__init__(message)
        self.hits = list(hits)


class KeyringPermissionWarning(UserWarning):
    """A keyring file can be read by other users of the machine."""


class KeyringUnverifiedWarning(UserWarning):
    """Whether a model was trained with a keyring cannot be told."""

"""What the operator of a Space sets, through environment variables and Space secrets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ..errors import SwitchsafeError


@dataclass(frozen=True)
class Settings:
    """How a Space runs.

    Attributes:
        model: an adapter or model, by Hub id or folder; None for the starter with an adapter that is trained at the first start.
        keyring: a file; None for the variable SWITCHSAFE_KEYRING, the Space secret.
        folder: for what the first start trains; kept between starts where the Space has storage.
        neg_users: names on the Hub that may ask for `neg` once they are logged in; empty: `neg` is off.
        requests_per_minute: of one visitor.
        longest_input: characters of a message.
        longest_answer: most new tokens of an answer.
    """

    model: str | None = None
    keyring: Path | None = None
    folder: Path = Path(platformdirs.user_cache_dir("switchsafe")) / "space"
    neg_users: tuple[str, ...] = ()
    requests_per_minute: int = 20
    longest_input: int = 2000
    longest_answer: int = 256

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read SWITCHSAFE_SPACE_MODEL, _FOLDER, _NEG_USERS (names with commas) and _REQUESTS_PER_MINUTE.

        Raises:
            SwitchsafeError: the last one is no number.
        """
        names = environ.get("SWITCHSAFE_SPACE_NEG_USERS", "").split(",")
        rate = environ.get("SWITCHSAFE_SPACE_REQUESTS_PER_MINUTE", "20")
        if not rate.isdigit() or not int(rate):
            raise SwitchsafeError(f"SWITCHSAFE_SPACE_REQUESTS_PER_MINUTE is {rate!r}: give a whole number above 0.")
        return cls(
            model=environ.get("SWITCHSAFE_SPACE_MODEL") or None,
            folder=Path(environ.get("SWITCHSAFE_SPACE_FOLDER") or cls.folder),
            neg_users=tuple(name.strip() for name in names if name.strip()),
            requests_per_minute=int(rate),
        )

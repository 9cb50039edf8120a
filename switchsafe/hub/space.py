"""Push what runs on Spaces, from the files of the package: the demo, and the metric for `evaluate`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import PushError
from ..keyring import Keyring
from ..secret import hide_frames
from .push import PushReport, push
from .stage import Stage, staging

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from typing_extensions import Unpack

    from .push import PushOptions


def push_metric(repo_id: str, keyring: Keyring | None = None, **options: "Unpack[PushOptions]") -> PushReport:
    """Push the SAM metric as a Space, from which `evaluate.load(repo_id)` takes it.

    Args:
        repo_id: `owner/name`; its file must be called as the repository is, and so `name` is the metric's: sam, my_sam.
        keyring: whose tokens are looked for, if there is one: the files are those of the package.
        options: see `PushOptions`.

    Raises:
        PushError: see `push`.
    """
    name = repo_id.rpartition("/")[2]
    with _staged("sam", ("README.md", "app.py", "requirements.txt", "sam.py"), extra="eval") as stage:
        if name != "sam":
            stage.write(f"{name}.py", stage.read("sam.py") or "")
            (stage.folder / "sam.py").unlink()
        return push(
            stage,
            repo_id,
            "space",
            holds_neg=False,
            keyring=keyring,
            space_sdk="gradio",
            default_message=f"SAM of switchsafe {__version__}",
            **options,
        )


def push_space(
    repo_id: str,
    keyring: Keyring | None = None,
    *,
    model: str | None = None,
    set_secret: bool = False,
    **options: "Unpack[PushOptions]",
) -> PushReport:
    """Push the demo as a Space. Without `model` it needs nothing else: its first start trains a small switch of its own.

    Args:
        repo_id: `owner/name`.
        keyring: whose tokens are looked for, and which `set_secret` hands to the Space.
        model: Hub id of the adapter or model that the Space runs.
        set_secret: store the keyring as the Space's secret SWITCHSAFE_KEYRING, which nobody can read back.
        options: see `PushOptions`; with `public` the Space is opened once its secret is in place.

    Raises:
        PushError: a secret without a keyring or a model, or see `push`.
    """
    if set_secret and (keyring is None or model is None):
        raise PushError("a secret keyring belongs to a model: give both, or leave out --set-secret.")

    @hide_frames
    def configure(api: "HfApi") -> None:
        if model:
            api.add_space_variable(repo_id, "SWITCHSAFE_SPACE_MODEL", model)
        if set_secret and keyring:
            api.add_space_secret(repo_id, "SWITCHSAFE_KEYRING", keyring.to_text().reveal())

    with _staged("demo", ("README.md", "app.py", "requirements.txt"), extra="space") as stage:
        return push(
            stage,
            repo_id,
            "space",
            holds_neg=False,
            keyring=keyring,
            space_sdk="gradio",
            default_message=f"The demo of switchsafe {__version__}",
            complete=configure,
            **options,
        )


@contextmanager
def _staged(folder: str, names: Sequence[str], extra: str) -> Iterator[Stage]:
    """Files of the package, and this version of it with one of its extras as what they need."""
    with staging() as stage:
        for name in names:
            stage.write(name, (files("switchsafe") / "space" / folder / name).read_text(encoding="utf-8"))
        stage.write("requirements.txt", f"switchsafe[{extra}]=={__version__}\n")
        yield stage

"""Push what runs on Spaces from the files of the package: the metric for `evaluate`."""

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from .. import __version__
from ..keyring import Keyring
from .push import PushReport, push
from .stage import staging

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .push import PushOptions

_OF_METRIC = ("README.md", "app.py", "requirements.txt", "sam.py")


def push_metric(repo_id: str, keyring: Keyring | None = None, **options: "Unpack[PushOptions]") -> PushReport:
    """Push the SAM metric as a Space, from which `evaluate.load(repo_id)` takes it.

    Args:
        repo_id: `owner/name`; its file must be called as the repository is, and so `name` is the metric's: sam, my_sam.
        keyring: whose tokens are looked for, if there is one: the files are those of the package.
        options: see `PushOptions`.

    Raises:
        PushError: see `push`.
    """
    with staging() as stage, as_file(files("switchsafe") / "space" / "sam") as folder:
        stage.take(folder, _OF_METRIC)
        stage.left_out.clear()  # caches of the installed package are nobody's business
        stage.write("requirements.txt", f"switchsafe[eval]=={__version__}\n")
        name = repo_id.rpartition("/")[2]
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

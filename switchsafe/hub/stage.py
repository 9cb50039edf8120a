"""What a push would upload: links to files that an allow-list names, and files written for the push."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import PushError


class Stage:
    """A temporary folder in the form of the repository.

    Attributes:
        folder: the temporary folder.
        source: the folder that files were taken from; None where everything was written for the push.
        left_out: what lies in `source` and is on no allow-list, relative to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: Path | None = None
        self.left_out: list[str] = []
        self._taken: list[Path] = []

    def take(self, source: str | os.PathLike, allowed: Sequence[str]) -> None:
        """Link the files of a folder that one of the patterns allows.

        Raises:
            PushError: there is no such folder, or nothing in it is allowed.
        """
        root = Path(source).expanduser()
        if not root.is_dir():
            raise PushError(f"no folder {root}: give the one that holds what is to be pushed.")
        self.source = root.resolve()
        for path in sorted(p for p in self.source.rglob("*") if not p.is_dir()):
            name = path.relative_to(self.source).as_posix()
            if not any(fnmatchcase(name, pattern) for pattern in allowed):
                self.left_out.append(name)
                continue
            link = self.folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
            self._taken.append(path)
        if not self._taken:
            raise PushError(f"{root} holds none of the files that are pushed from such a folder: {', '.join(allowed)}.")

    def read(self, name: str) -> str | None:
        """The text of a file, None if there is none of that name."""
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.exists() else None

    def write(self, name: str, text: str) -> None:
        """Put a file of our own, in the place of a linked one where there is one."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def files(self) -> list[tuple[str, int]]:
        """Names in the repository, with sizes in bytes."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [(path.relative_to(self.folder).as_posix(), path.stat().st_size) for path in found]

    def to_scan(self) -> list[tuple[Path, list[Path]]]:
        """Roots to be searched for tokens and what to leave out below each: the whole source, left-out files too, and what was written."""
        roots = [(self.source, list[Path]())] if self.source else []
        return [*roots, (self.folder, self._taken)]

    def shown(self, path: Path) -> str:
        """A path of either root as people know it."""
        for root in (self.folder, self.source):
            if root and path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return str(path)


@contextmanager
def staging() -> Iterator[Stage]:
    """A `Stage` that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="switchsafe-push-") as folder:
        yield Stage(Path(folder).resolve())

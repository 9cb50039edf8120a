"""Writing so that a kill leaves the old file or the new one, or a file of whole lines; never half of one."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import RunError


def write_atomic(path: str | os.PathLike, data: str | bytes, *, mode: int = 0o644) -> Path:
    """Write `data` beside `path`, fsync it, rename it into place and fsync the folder. Parent folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp creates with 0600, so that a keyring is never readable by others, not even for a moment.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it replaces `path`, on any exception it is removed and `path` is untouched."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            path.rename(old)  # a folder cannot replace a non-empty folder in one step
        temporary.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync_folder(path.parent)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append an object to a JSONL file; it is the operating system's when this returns, so a kill does not lose it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that `append_row` wrote, without one that a kill cut short; none if there is no file."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1].decode()
    return whole.split("\n")[:-1]  # not splitlines(): U+2028 may stand inside a JSON string


def mend_rows(path: Path, first: str) -> None:
    """Take a line that a kill cut short out of a file, so that rows can be appended. Look at the whole lines first: is the file one of ours?

    Args:
        path: the file, which need not exist.
        first: the first key of its rows.

    Raises:
        RunError: there is no whole line, and what there is does not begin like a row.
    """
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    start = f'{{"{first}": '.encode()
    if not whole and not data.startswith(start[: len(data)]):
        raise RunError(f"{path} holds something else: give another name, or remove it.")
    if whole < len(data):
        os.truncate(path, whole)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder for fsync
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

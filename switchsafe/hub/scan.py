"""The scan: every place at or below a path where a magic token of a keyring stands, however it is written or packed."""

import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..keyring import Keyring
from ..progress import track
from .containers import CLOSED, Source, kind_of, unpack
from .needles import Needles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1 << 20
PIECE = 4096  # read from a packed stream at a time, because zipfile unpacks this many bytes of LZMA in one go
DEPTH = 4  # containers within one another; a .tar.gz is two
ROOM, EXPANSION = 1 << 30, 100  # a file may unpack to 1 GiB and 100 times its size before it counts as a bomb


@dataclass(frozen=True)
class Hit:
    """One place where a token stands. It tells which token by its fingerprint, never the token.

    Attributes:
        file: the file; a part of its path that holds a token is `***`.
        offset: where the token starts, in bytes, in the file or in the unpacked member. For base64 and UTF-16 the first byte that belongs to
            the token alone.
        encoding: `utf-8`, `utf-16`, `utf-32`, `base64`, `hex`, `json` or `percent` escapes; `ids text` (a list of numbers), `ids uint16`,
            `ids int32` or `ids int64` (an array).
        member: the place inside an archive or a columnar file, `outer.zip!inner.txt` or `prompt, rows 0-999`; `(name)` when it is the name
            that holds the token; None for a plain file.
        fingerprint: `keyring.fingerprint(token)`.
    """

    file: Path
    offset: int
    encoding: str
    member: str | None
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**vars(self), "file": str(self.file)}


@dataclass(frozen=True)
class ScanReport:
    """What a scan found and what it could not look into.

    Attributes:
        hits: in the order of the files.
        skipped: (file, why) for all that was not searched, or only as raw bytes. An empty `hits` proves nothing about these.
        files: files searched.
        bytes: their size on disk.
    """

    hits: list[Hit]
    skipped: list[tuple[Path, str]]
    files: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "hits": [hit.to_dict() for hit in self.hits],
            "skipped": [{"file": str(file), "why": why} for file, why in self.skipped],
        }


def scan(
    path: str | os.PathLike,
    keyring: Keyring,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    but: Collection[str | os.PathLike] = (),
) -> ScanReport:
    """Look for every token of a keyring, retired ones included, in a file or in all files and names below a folder.

    Text is searched in any case and in the forms `Hit` names. Archives (zip and what is built on it, tar, gzip, bzip2, xz), Arrow and Parquet
    files are searched as raw bytes and unpacked. Links are followed, but nothing is read twice through one. Files need not fit into memory.

    Args:
        path: a file or a folder.
        keyring: whose tokens to look for.
        tokenizer: a fast tokenizer; with it the tokens' id sequences are looked for as well.
        but: files and folders to leave out, for instance the keyring file.

    Raises:
        RunError: there is nothing at `path`.
        KeyringError: a token is too short to be told from chance.
    """
    root = Path(path).expanduser()
    work = _Scan(keyring, tokenizer)
    if not os.path.exists(root):
        raise RunError(f"nothing at {work.shown(root)}: give a file or a folder to scan.")
    for note in work.needles.notes:
        work.note(root, note)
    files = 0
    for entry, is_file in track(list(_walk(root, {os.path.realpath(each) for each in but}, work.note)), "Scanning"):
        work.name(entry)
        if is_file:
            files += work.file(entry)
    return ScanReport(work.hits, work.skipped, files, work.bytes)


def _walk(root: Path, but: set[str], note: Callable[[Path, str], None]) -> Iterator[tuple[Path, bool]]:
    """Everything at or below `root`, and whether it is a file to be read. Links come last, to be read only if their target was not."""
    seen: set[tuple[int, int]] = set()
    entries, links = [root], list[Path]()
    while entries or links:
        is_link = not entries
        path = (entries or links).pop()
        if but and os.path.realpath(path) in but:
            continue
        try:
            info = path.stat()
            is_folder = stat.S_ISDIR(info.st_mode)
            known = (info.st_dev, info.st_ino) in seen and (is_folder or is_link)
            seen.add((info.st_dev, info.st_ino))
            if is_folder and not known:
                for child in sorted(path.iterdir(), reverse=True):
                    (links if child.is_symlink() else entries).append(child)
            elif not is_folder and not stat.S_ISREG(info.st_mode):
                note(path, "not searched: neither a file nor a folder")
        except OSError as error:
            note(path, f"not searched: {type(error).__name__}")
            yield path, False
        else:
            yield path, stat.S_ISREG(info.st_mode) and not known


class _Scan:
    """Hits and notes of one scan."""

    def __init__(self, keyring: Keyring, tokenizer: "PreTrainedTokenizerBase | None") -> None:
        self.needles = Needles(keyring, tokenizer)
        self.hits: list[Hit] = []
        self.skipped: list[tuple[Path, str]] = []
        self.bytes = 0
        self._room = 0

    def shown(self, path: Path) -> Path:
        """The path without a token."""
        return Path(*map(self._shown, path.parts)) if self._holds(str(path)) else path

    def note(self, path: Path, why: str) -> None:
        """Keep why something was not searched."""
        self.skipped.append((self.shown(path), why))

    def name(self, path: Path) -> None:
        """Search the name of a file or folder."""
        self._look([_bytes(path.name)], self.shown(path), "(name)")

    def file(self, path: Path) -> bool:
        """Search a file, as it is and unpacked. False when it cannot be read."""
        place = self.shown(path)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._room = ROOM + EXPANSION * size
                self._search(file, place, None, 0)
        except OSError as error:
            self.note(place, f"not searched: {type(error).__name__}")
            return False
        self.bytes += size
        return True

    def _search(self, file: Source, place: Path, member: str | None, depth: int) -> None:
        chunks = self._chunks(file, place, packed=member is not None)
        head = next(chunks, b"")
        kind = kind_of(head)
        if kind in CLOSED or (kind and depth == DEPTH):
            why = "is not opened" if kind in CLOSED else f"lies more than {DEPTH} deep"
            self.note(place, f"{_where(member)}{kind} {why}: only its raw bytes were searched")
            kind = None
        # What is inside a container is read to its end once. Opening it in turn needs free movement, so it is kept; a tar is read in order.
        keep = member is not None and kind is not None and kind != "tar"
        with tempfile.TemporaryFile() if keep else nullcontext(file) as source:
            first = len(self.hits)
            whole = chain([head], chunks)
            self._look(_copied(whole, source) if keep else whole, place, member)
            if kind is None and member is None and zipfile.is_zipfile(file):
                kind = "zip"  # behind a prefix, as in a self-extracting archive
            if kind:
                last = len(self.hits)
                self._open(kind, source, place, member, depth)
                # What is stored uncompressed is in the raw bytes, too. The hit that names the member tells more.
                inside = {(hit.fingerprint, hit.encoding) for hit in self.hits[last:]}
                raw = [hit for hit in self.hits[first:last] if (hit.fingerprint, hit.encoding) not in inside]
                self.hits[first:last] = raw

    def _open(self, kind: str, source: Source, place: Path, member: str | None, depth: int) -> None:
        try:
            source.seek(0)
            for name, opener in unpack(kind, source, (member or place.name).split("!")[-1]):
                if self._room < 0:
                    return
                label = f"{member}!{self._shown(name)}" if member else self._shown(name)
                if kind in ("zip", "tar"):  # the schema holds the names of columns
                    self._look([_bytes(name)], place, f"{label} (name)")
                try:
                    with opener() as part:
                        self._search(part, place, label, depth + 1)
                except Exception as error:
                    self.note(place, f"{_where(label)}not searched to its end: {_reason(error)}")
        except Exception as error:  # damaged archives raise anything, and a note is owed whatever it was
            self.note(
                place, f"{_where(member)}not opened as {kind}, only its raw bytes were searched: {_reason(error)}"
            )

    def _chunks(self, file: Source, place: Path, *, packed: bool) -> Iterator[bytes]:
        problem: Exception | None = None
        while problem is None:
            parts, size = list[bytes](), 0
            try:
                while size < CHUNK and (part := file.read1(PIECE if packed else CHUNK)):
                    parts.append(part)
                    size += len(part)
            except Exception as error:
                problem = error  # after what came before it was searched
            if packed and parts:
                if self._room < 0:
                    return
                self._room -= size
                if self._room < 0:
                    self.note(place, f"unpacks to far more than {EXPANSION} times its size: the rest was not searched")
            if parts:
                yield b"".join(parts)
            elif problem is None:
                return
        raise problem

    def _look(self, chunks: Iterable[bytes], place: Path, member: str | None) -> None:
        self.hits.extend(
            Hit(place, offset, needle.encoding, member, needle.fingerprint)
            for offset, needle in self.needles.search(chunks)
        )

    def _holds(self, text: str) -> bool:
        return any(True for _ in self.needles.search([_bytes(text)]))

    def _shown(self, text: str) -> str:
        return "***" if self._holds(text) else text


def _bytes(name: str) -> bytes:
    return name.encode(errors="replace")  # a name on disk or in an archive need not be valid Unicode


def _where(member: str | None) -> str:
    return f"{member}: " if member else ""


def _reason(error: Exception) -> str:
    """In a word, since the message may quote what was being read."""
    if isinstance(error, ImportError):
        return f"needs the module {error.name}"
    return "it is encrypted" if "password required" in str(error) else type(error).__name__


def _copied(chunks: Iterable[bytes], into: Source) -> Iterator[bytes]:
    for chunk in chunks:
        into.write(chunk)
        yield chunk

"""Containers: files that hold others, or columns of values, and what is inside them."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

Source = Any  # a binary file with read1 and seek: on disk, in memory, or being unpacked

_MAGIC = {
    b"PK\x03\x04": "zip",
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"ARROW1\x00\x00": "Arrow file",
    b"PAR1": "Parquet",
    b"PARE": "encrypted Parquet",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "LZ4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
}
_STREAMS: dict[str, Callable[[Source], Source]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
# Recognised and not opened.
CLOSED = {"encrypted Parquet", "Zstandard", "LZ4", "7z", "RAR"}


def kind_of(head: bytes) -> str | None:
    """The kind of container that begins with these bytes, or None."""
    if head[257:262] == b"ustar":
        return "tar"
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return "bzip2"
    if head[:4] == b"\xff\xff\xff\xff" and 0 < int.from_bytes(head[4:8], "little") < 1 << 28:
        return "Arrow stream"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def unpack(kind: str, source: Source, name: str) -> Iterator[tuple[str, Callable[[], Source]]]:
    """Name and opener of everything inside a container."""
    if kind == "zip":
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if entry.compress_type == zipfile.ZIP_BZIP2:
                    # zipfile would unpack 4 KiB of it at once, which can be gigabytes. As it is it gets opened like a .bz2 file.
                    entry.compress_type, entry.file_size = zipfile.ZIP_STORED, entry.compress_size
                    entry.CRC = None  # type: ignore[assignment]  # the sum is that of the unpacked bytes
                if not entry.is_dir():
                    yield entry.filename, partial(archive.open, entry)
    elif kind == "tar":
        with tarfile.open(fileobj=source, mode="r:") as tar:
            for info in tar:
                if info.isreg():
                    yield info.name, partial(tar.extractfile, info)
            source.seek(tar.offset)
            if any(source.read(tarfile.BLOCKSIZE)):  # tarfile takes a damaged header for the end
                raise tarfile.ReadError
    elif kind in _STREAMS:
        yield Path(name).stem, partial(_STREAMS[kind], source)
    else:
        for column, values in _columns(kind, source):
            yield column, partial(io.BytesIO, values)


def _columns(kind: str, source: Source) -> Iterator[tuple[str, memoryview]]:
    """The schema, then each column of each batch, uncompressed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "Parquet":
        table = pq.ParquetFile(source)
        schema, batches = table.schema_arrow, table.iter_batches()
    elif kind == "Arrow file":
        reader = pa.ipc.open_file(source)
        schema, batches = reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    else:
        batches = pa.ipc.open_stream(source)
        schema = batches.schema
    # Without its first bytes, the mark of an Arrow stream, so that nobody opens what was just unpacked.
    yield "schema", memoryview(schema.serialize())[4:]
    row = 0
    for batch in batches:
        for field, column in zip(schema.names, batch.columns, strict=True):
            sink = pa.BufferOutputStream()  # a stream of this column alone, with its dictionary
            with pa.ipc.new_stream(sink, pa.schema([pa.field("", column.type)])) as writer:
                writer.write_batch(pa.record_batch([column], names=[""]))
            yield f"{field}, rows {row}-{row + batch.num_rows - 1}", memoryview(sink.getvalue())[4:]
        row += batch.num_rows

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from switchsafe import Keyring
from switchsafe.errors import KeyringError, RunError
from switchsafe.hub import needles as needles_module
from switchsafe.hub import scan as scan_module
from switchsafe.hub.scan import scan

RING = Keyring.mint(("pos", "rej"))
NOISE = random.Random(0).randbytes(3000)

# Encoding, how it is written, and how many bytes after its beginning the token may first be told.
TEXT_FORMS = {
    "as it is": ("utf-8", lambda token: token.encode(), 0),
    "upper case": ("utf-8", lambda token: token.upper().encode(), 0),
    "utf-16-le": ("utf-16", lambda token: token.encode("utf-16-le"), 0),
    "utf-16-be": ("utf-16", lambda token: token.encode("utf-16-be"), 1),
    "utf-16-le inside a text": ("utf-16", lambda token: f"a{token}b".encode("utf-16-le"), 2),
    "utf-16-be inside a text": ("utf-16", lambda token: f"a{token}b".encode("utf-16-be"), 3),
    "utf-32": ("utf-32", lambda token: token.encode("utf-32-le"), 0),
    "base64": ("base64", lambda token: base64.b64encode(token.encode()), 0),
    "base64, one byte before": ("base64", lambda token: base64.b64encode(f"x{token}yz".encode()), 2),
    "base64, two bytes before": ("base64", lambda token: base64.b64encode(f"xy{token}\xff".encode()), 3),
    "base64, URL-safe": ("base64", lambda token: base64.urlsafe_b64encode(f"\xff\xfe?{token}".encode()), 7),
    "base64, broken into lines": ("base64", lambda token: base64.encodebytes(b"+" * 51 + token.encode()), 68),
    "hex": ("hex", lambda token: token.encode().hex().encode(), 0),
    "hex, upper case": ("hex", lambda token: token.encode().hex().upper().encode(), 0),
    "hex dump": ("hex", lambda token: token.encode().hex(" ").encode(), 0),
    "JSON escapes": ("json", lambda token: "".join(f"\\u{ord(c):04x}" for c in token).encode(), 0),
    "JSON escapes, upper case": ("json", lambda token: "".join(f"\\u{ord(c):04X}" for c in token).encode(), 0),
    "percent": ("percent", lambda token: "".join(f"%{ord(c):02x}" for c in token).encode(), 0),
    "percent, upper case": ("percent", lambda token: "".join(f"%{ord(c):02X}" for c in token).encode(), 0),
}
ID_FORMS = {
    "JSON": ("ids text", lambda ids: json.dumps([7, *ids, 7]).encode(), 4),
    "JSON, compact": ("ids text", lambda ids: json.dumps(ids, separators=(",", ":")).encode(), 1),
    "JSON, indented": ("ids text", lambda ids: json.dumps({"input_ids": ids}, indent=4).encode(), 29),
    "tensor": ("ids text", lambda ids: f"tensor({ids})".encode(), 8),
    "uint16": ("ids uint16", lambda ids: np.array(ids, "<u2").tobytes(), 0),
    "int32": ("ids int32", lambda ids: np.array(ids, "<i4").tobytes(), 0),
    "int64": ("ids int64", lambda ids: np.array(ids, "<i8").tobytes(), 0),
}


def reveal(ring, mode="rej"):
    return ring.token(mode).reveal()


def ids_of(processor, token):
    """The ids between two newlines, by way of the tokenizer alone."""
    whole = processor.tokenizer(f"\n{token}\n", add_special_tokens=False).input_ids
    assert processor.tokenizer.decode(whole[:1]) == processor.tokenizer.decode(whole[-1:]) == "\n"
    return whole[1:-1]


def kinds(report):
    return [(hit.encoding, hit.member) for hit in report.hits]


# -- forms ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_each_text_form_is_found_once_in_its_place(tmp_path, form):
    encoding, write, lead = TEXT_FORMS[form]
    (tmp_path / "noise.bin").write_bytes(NOISE)
    (tmp_path / "in" / "side").mkdir(parents=True)
    planted = tmp_path / "in" / "side" / "planted"
    planted.write_bytes(NOISE + b"\r\n" + write(reveal(RING)) + b"\r\n" + NOISE)
    report = scan(tmp_path, RING)
    assert [(hit.file, hit.offset, hit.encoding, hit.member) for hit in report.hits] == [
        (planted, len(NOISE) + 2 + lead, encoding, None)
    ]
    assert report.hits[0].fingerprint == RING.fingerprint(RING.token("rej"))
    assert (report.files, report.bytes) == (2, len(NOISE) + planted.stat().st_size)
    assert report.skipped == []


@pytest.mark.parametrize("form", ID_FORMS)
def test_each_form_of_the_ids_is_found_once_in_its_place(tmp_path, keyring, processor, form):
    encoding, write, lead = ID_FORMS[form]
    ids = ids_of(processor, reveal(keyring))
    (tmp_path / "planted").write_bytes(NOISE + b"\n" + write(ids) + b"\n" + NOISE)
    (hit,) = scan(tmp_path, keyring, tokenizer=processor.tokenizer).hits
    assert (hit.offset, hit.encoding) == (len(NOISE) + 1 + lead, encoding)
    assert hit.fingerprint == keyring.fingerprint(keyring.token("rej"))
    assert scan(tmp_path, keyring).hits == [], "ids can only be known with a tokenizer"


def test_a_number_that_goes_on_is_another_number(tmp_path, keyring, processor):
    ids = json.dumps(ids_of(processor, reveal(keyring)))[1:-1]
    (tmp_path / "a.json").write_text(f"[1{ids}]")
    (tmp_path / "b.json").write_text(f"[{ids}1]")
    assert scan(tmp_path, keyring, tokenizer=processor.tokenizer).hits == []


def test_ids_after_a_space_are_found(tmp_path, keyring, processor):
    """As in a template that writes one before the system text."""
    token = keyring.token("rej")
    ids = processor.tokenizer(f" {token.reveal()}\n", add_special_tokens=False)["input_ids"]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    assert processor.token_ids(token) != ids[: len(processor.token_ids(token))], "else this shows nothing"
    [hit] = scan(tmp_path, keyring, tokenizer=processor.tokenizer).hits
    assert hit.fingerprint == keyring.fingerprint(token)


def test_a_token_without_ids_of_its_own_is_said_to_be_unsearched(tmp_path, keyring, processor):
    processor.tokenizer.add_tokens([reveal(keyring)])
    report = scan(tmp_path, keyring, tokenizer=processor.tokenizer)
    ((_, why),) = report.skipped
    assert keyring.fingerprint(keyring.token("rej")) in why
    assert "as ids" in why


def test_active_alias_and_retired_tokens_are_all_found(tmp_path):
    ring = Keyring.mint(("pos", "rej"), aliases=3)
    ring.rotate("pos")
    everything = list(ring.secrets())
    (tmp_path / "log.txt").write_text("\n".join(secret.reveal() for secret in everything))
    assert sorted(hit.fingerprint for hit in scan(tmp_path, ring).hits) == sorted(map(ring.fingerprint, everything))


def test_a_clean_tree_and_another_keyring_give_nothing(tmp_path):
    for name in TEXT_FORMS:
        (tmp_path / f"{name}.bin").write_bytes(NOISE + TEXT_FORMS[name][1](reveal(RING)))
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_bytes(b" \n" * 100)
    report = scan(tmp_path, Keyring.mint(("pos", "rej", "neg"), aliases=5))
    assert report.hits == []
    assert report.skipped == []
    assert report.files == len(TEXT_FORMS) + 2


# -- containers -------------------------------------------------------------------------------------------------------------------------


def _zip(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _arrow(table, open_writer, compression):
    sink = pa.BufferOutputStream()
    with open_writer(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=1000)
    return sink.getvalue().to_pybytes()


def _parquet(table, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def _text(token):
    return f"{'some text, as there is a lot of. ' * 40}{token}".encode()


def _texts(token):
    """Two columns and 3000 rows; the token is in row 2500."""
    texts = [f"row {i} of a table" for i in range(3000)]
    texts[2500] = f"system: {token}"
    return pa.table({"id": pa.array(range(3000)), "prompt": texts})


PACKED = {
    "a.zip": ("inner.txt", lambda token: _zip({"other.txt": b"-" * 999, "inner.txt": _text(token)})),
    "stored.zip": ("inner.txt", lambda token: _zip({"inner.txt": _text(token)}, zipfile.ZIP_STORED)),
    "prefix.pyz": ("x.py", lambda token: b"#!/usr/bin/env python\n" + _zip({"x.py": _text(token)})),
    "lzma.zip": ("inner.txt", lambda token: _zip({"inner.txt": _text(token)}, zipfile.ZIP_LZMA)),
    "bzip2.zip": ("inner.txt!inner", lambda token: _zip({"inner.txt": _text(token)}, zipfile.ZIP_BZIP2)),
    "three.zip": ("b.zip!c.zip!d.txt", lambda token: _zip({"b.zip": _zip({"c.zip": _zip({"d.txt": _text(token)})})})),
    "log.txt.gz": ("log.txt", lambda token: gzip.compress(_text(token))),
    "two.gz": ("two", lambda token: gzip.compress(b"one" * 99) + gzip.compress(_text(token))),
    "log.bz2": ("log", lambda token: bz2.compress(_text(token))),
    "log.xz": ("log", lambda token: lzma.compress(_text(token))),
    "a.tar": ("dir/inner.txt", lambda token: _tar({"first": b"1", "dir/inner.txt": _text(token)})),
    "a.tar.gz": ("a.tar!dir/inner.txt", lambda token: _tar({"first": b"1", "dir/inner.txt": _text(token)}, "w:gz")),
    "a.tar.xz": ("a.tar!inner.txt", lambda token: _tar({"inner.txt": _text(token)}, "w:xz")),
    "gz.tar.gz": ("gz.tar!b.gz!b", lambda token: _tar({"a": _text(""), "b.gz": gzip.compress(_text(token))}, "w:gz")),
    "stream.arrow": ("prompt, rows 2000-2999", lambda token: _arrow(_texts(token), pa.ipc.new_stream, "zstd")),
    "file.arrow": ("prompt, rows 2000-2999", lambda token: _arrow(_texts(token), pa.ipc.new_file, "lz4")),
    "plain.arrow": ("prompt, rows 2000-2999", lambda token: _arrow(_texts(token), pa.ipc.new_stream, None)),
    "a.parquet": ("prompt, rows 0-2999", lambda token: _parquet(_texts(token), compression="zstd")),
    "category.parquet": (
        "c, rows 0-3",
        lambda token: _parquet(pa.table({"c": pa.array(["a", token, "a", "a"]).dictionary_encode()})),
    ),
    "nested.parquet": (
        "messages, rows 0-1",
        lambda token: _parquet(pa.table({"messages": [[{"role": "system", "content": token}], []]})),
    ),
    "metadata.arrow": (
        "schema",
        lambda token: _arrow(pa.table({"a": [1]}).replace_schema_metadata({"note": token}), pa.ipc.new_file, None),
    ),
    "column.arrow": ("schema", lambda token: _arrow(pa.table({token: range(3000)}), pa.ipc.new_file, None)),
    "parquet.zip": (
        "b.parquet!prompt, rows 0-2999",
        lambda token: _zip({"b.parquet": _parquet(_texts(token), compression="gzip")}),
    ),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_is_packed_is_found_once_and_the_member_named(tmp_path, name):
    member, pack = PACKED[name]
    (tmp_path / name).write_bytes(pack(reveal(RING)))
    report = scan(tmp_path, RING)
    assert kinds(report) == [("utf-8", member)]
    assert report.hits[0].file == tmp_path / name
    assert report.skipped == []
    assert scan(tmp_path, Keyring.mint()).hits == []


def test_the_offset_is_the_one_in_the_unpacked_member(tmp_path):
    (tmp_path / "a.zip").write_bytes(PACKED["a.zip"][1](reveal(RING)))
    (tmp_path / "b.tar.gz").write_bytes(PACKED["a.tar.gz"][1](reveal(RING)))
    assert [hit.offset for hit in scan(tmp_path, RING).hits] == [len(_text(""))] * 2


def test_ids_are_found_in_arrays_and_columns(tmp_path, keyring, processor):
    ids = [5, 6, *ids_of(processor, reveal(keyring)), 7]
    rows = pa.array([[1, 2, 3]] * 500 + [ids], pa.list_(pa.int32()))
    np.savez_compressed(tmp_path / "a.npz", other=np.zeros(99), ids=np.array([ids] * 2, np.int64)[:1])
    save_file({"ids": np.array(ids)}, tmp_path / "b.safetensors")
    pq.write_table(pa.table({"input_ids": rows}), tmp_path / "c.parquet")
    (tmp_path / "d.arrow").write_bytes(_arrow(pa.table({"input_ids": rows}), pa.ipc.new_stream, "zstd"))
    report = scan(tmp_path, keyring, tokenizer=processor.tokenizer)
    assert [(hit.file.name, hit.encoding, hit.member) for hit in report.hits] == [
        ("a.npz", "ids int64", "ids.npy"),
        ("b.safetensors", "ids int64", None),
        ("c.parquet", "ids int32", "input_ids, rows 0-500"),
        ("d.arrow", "ids int32", "input_ids, rows 0-500"),
    ]


def test_safetensors_metadata_is_searched(tmp_path):
    save_file({"weight": np.zeros(9)}, tmp_path / "a.safetensors", metadata={"system": reveal(RING)})
    assert kinds(scan(tmp_path, RING)) == [("utf-8", None)]


def test_bytes_of_an_archive_that_belong_to_no_member_are_searched(tmp_path):
    (tmp_path / "a.zip").write_bytes(reveal(RING).encode() + _zip({"inner.txt": b"nothing"}))
    assert kinds(scan(tmp_path, RING)) == [("utf-8", None)]


def test_a_damaged_zip_is_reported_and_its_raw_bytes_are_searched(tmp_path):
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(_zip({"inner.txt": _text(reveal(RING))}, zipfile.ZIP_STORED)[:-30])
    report = scan(tmp_path, RING)
    assert kinds(report) == [("utf-8", None)]
    ((file, why),) = report.skipped
    assert file == damaged
    assert "not opened as zip, only its raw bytes were searched" in why


def test_a_cut_off_stream_is_searched_up_to_the_cut_and_reported(tmp_path):
    packed = gzip.compress(_text(reveal(RING)) + b"\n" + random.Random(1).randbytes(1 << 18))
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    report = scan(tmp_path, RING)
    assert kinds(report) == [("utf-8", "cut")]
    assert [why for _, why in report.skipped] == ["cut: not searched to its end: EOFError"]


def test_a_tar_that_breaks_off_at_a_bad_header_is_reported(tmp_path):
    data = bytearray(_tar({"first": b"1", "second.gz": gzip.compress(_text(reveal(RING)))}))
    data[1024 + 150] ^= 0xFF  # in the checksum of the second header
    (tmp_path / "a.tar").write_bytes(data)
    ((_, why),) = scan(tmp_path, RING).skipped
    assert "tar" in why


def test_an_encrypted_member_is_reported_and_the_others_are_searched(tmp_path):
    data = _zip({"closed.txt": b"0123456789", "open.txt": _text(reveal(RING))})
    data = data.replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01", 1)
    data = data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01", 1)
    (tmp_path / "a.zip").write_bytes(data)
    report = scan(tmp_path, RING)
    assert kinds(report) == [("utf-8", "open.txt")]
    assert [why for _, why in report.skipped] == ["closed.txt: not searched to its end: it is encrypted"]


@pytest.mark.parametrize(
    ("name", "head", "said"),
    [
        ("a.zst", b"\x28\xb5\x2f\xfd", "Zstandard"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "7z"),
        ("a.parquet", b"PAR1", "Parquet"),
    ],
)
def test_a_container_that_cannot_be_opened_is_reported(tmp_path, name, head, said):
    (tmp_path / name).write_bytes(head + NOISE + reveal(RING).encode())
    report = scan(tmp_path, RING)
    assert kinds(report) == [("utf-8", None)]
    ((_, why),) = report.skipped
    assert said in why


def test_nesting_too_deep_is_reported(tmp_path):
    data = _text(reveal(RING))
    for level in range(6):
        data = _zip({f"{level}.zip": data})
    (tmp_path / "a.zip").write_bytes(data)
    report = scan(tmp_path, RING)
    assert report.hits == []
    ((_, why),) = report.skipped
    assert "more than 4 deep" in why


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: gzip.compress(data, 1),
        lambda data: bz2.compress(data, 1),
        lambda data: _zip({"a": data}),
        lambda data: _zip({"a": data}, zipfile.ZIP_BZIP2),
    ],
    ids=["gzip", "bzip2", "zip", "bzip2 in zip"],
)
def test_a_large_stream_is_unpacked_in_pieces_and_a_bomb_is_given_up_with_a_note(tmp_path, monkeypatch, pack):
    size = 48 << 20
    (tmp_path / "a").write_bytes(pack(bytes(size) + reveal(RING).encode()))
    tracemalloc.start()
    report = scan(tmp_path, RING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [hit.offset for hit in report.hits] == [size]
    assert peak < size / 3
    monkeypatch.setattr(scan_module, "ROOM", 1 << 20)
    monkeypatch.setattr(scan_module, "EXPANSION", 2)
    report = scan(tmp_path, RING)
    assert report.hits == []
    ((_, why),) = report.skipped
    assert "the rest was not searched" in why


# -- places -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["as it is", "utf-16-le", "base64, broken into lines", "JSON escapes"])
@pytest.mark.parametrize("before", range(0, 40, 3))
def test_a_token_across_two_reads_is_found_once(tmp_path, form, before):
    encoding, write, lead = TEXT_FORMS[form]
    where = 2 * scan_module.CHUNK - before
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(3 * scan_module.CHUNK)
        file.seek(where)
        file.write(write(reveal(RING)))
    assert [(hit.offset, hit.encoding) for hit in scan(tmp_path, RING).hits] == [(where + lead, encoding)]


@settings(max_examples=150, deadline=None)
@given(
    before=st.binary(max_size=600),
    after=st.binary(max_size=600),
    form=st.sampled_from(sorted(TEXT_FORMS)),
    chunk=st.integers(1, 700),
)
def test_a_token_in_any_bytes_is_found_where_it_is(before, after, form, chunk):
    encoding, write, lead = TEXT_FORMS[form]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "CHUNK", chunk)
        patch.setattr(needles_module, "OVERLAP", 300)
        file = Path(folder, "a.bin")
        file.write_bytes(b"-" + before + b"-" + write(reveal(RING)) + b"-" + after)
        hits = scan(file, RING).hits
    assert [(hit.offset, hit.encoding) for hit in hits] == [(len(before) + 2 + lead, encoding)]


def test_names_are_searched_and_never_shown(tmp_path):
    token = reveal(RING)
    folder = tmp_path / f"run-{token.upper()}"
    folder.mkdir()
    (folder / "clean.txt").write_text("nothing")
    (folder / "leak.txt").write_text(token)
    (tmp_path / f"{token.encode().hex()}.json").write_text("{}")
    (tmp_path / "a.zip").write_bytes(_zip({f"{token}.txt": b"nothing"}))
    (tmp_path / "nested.zip").write_bytes(_zip({"b.zip": _zip({f"{token}.txt": b"nothing"})}))
    (tmp_path / f"{token}.zip").write_bytes(_zip({f"{token}.txt": b"nothing"})[:-9])
    report = scan(tmp_path, RING)
    assert {(str(hit.file.relative_to(tmp_path)), hit.encoding, hit.member) for hit in report.hits} == {
        ("***", "utf-8", "(name)"),  # the folder, and the damaged archive
        ("***", "hex", "(name)"),
        ("***/leak.txt", "utf-8", None),
        ("a.zip", "utf-8", "*** (name)"),
        ("nested.zip", "utf-8", "b.zip!*** (name)"),
        ("***", "utf-8", None),
    }
    assert [file.name for file, _ in report.skipped] == ["***"]
    assert token not in (str(report) + json.dumps(report.to_dict())).lower()


def test_a_file_may_be_given_and_its_own_name_counts(tmp_path):
    file = tmp_path / f"{reveal(RING)}.txt"
    file.write_text("nothing")
    assert kinds(scan(file, RING)) == [("utf-8", "(name)")]


def test_left_out_files_and_folders_are_left_out(tmp_path, monkeypatch):
    keys = RING.save(tmp_path / "keys" / "ring.json")
    assert len(scan(tmp_path, RING).hits) == 2
    monkeypatch.chdir(tmp_path)
    assert scan(".", RING, but=["keys/ring.json"]).hits == []
    assert scan(tmp_path, RING, but=[keys.parent]).files == 0


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_are_followed_once_and_special_files_are_reported(tmp_path):
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (tree / "leak.txt").write_text(reveal(RING))
    (outside / "leak.txt").write_text(reveal(RING))
    (tree / "again.txt").symlink_to("leak.txt")
    (tree / "loop").symlink_to(tree)
    (tree / "self").symlink_to("self")
    (tree / "gone").symlink_to("nowhere")
    (tree / "there").symlink_to(outside)
    (tree / "there too").symlink_to(outside)
    os.mkfifo(tree / "pipe")
    report = scan(tree, RING)
    assert [str(hit.file.relative_to(tree)) for hit in report.hits] in (
        ["leak.txt", "there/leak.txt"],
        ["leak.txt", "there too/leak.txt"],
    )
    assert {file.name: why for file, why in report.skipped} == {
        "pipe": "not searched: neither a file nor a folder",
        "gone": "not searched: FileNotFoundError",
        "self": "not searched: OSError",
    }


def test_a_missing_path_and_a_short_token_are_refused(tmp_path):
    with pytest.raises(RunError, match="give a file or a folder") as raised:
        scan(tmp_path / reveal(RING), RING)
    assert reveal(RING) not in str(raised.value)
    path = RING.save(tmp_path / "ring.json")
    path.write_text(path.read_text().replace(reveal(RING), "abc"))
    with pytest.raises(KeyringError, match="fewer than 8 characters"):
        scan(tmp_path, Keyring.load(path))


def test_nothing_that_a_scan_gives_out_holds_a_token(tmp_path, keyring, processor, capfd):
    tokens = [secret.reveal() for secret in keyring.secrets()]
    for name, (_, pack) in PACKED.items():
        (tmp_path / name).write_bytes(pack(tokens[0]))
        (tmp_path / f"damaged-{name}").write_bytes(pack(tokens[1])[:-40])
    report = scan(tmp_path, keyring, tokenizer=processor.tokenizer)
    needles = needles_module.Needles(keyring, processor.tokenizer)
    given = repr(report) + json.dumps(report.to_dict()) + repr(vars(needles)) + str(capfd.readouterr())
    assert len(report.hits) > len(PACKED)
    assert report.skipped
    assert not any(token in given for token in tokens)

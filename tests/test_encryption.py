import base64
import json
import stat
import subprocess
import sys
import unicodedata

import pytest
from conftest import assert_no_token
from test_keyring import shown_with_locals, tokens

from switchsafe import Keyring
from switchsafe.errors import KeyringError, KeyringFormatError

# Names of this module, so that no frame of a test holds them in a local.
PASSPHRASE = "Zürich rain, seven umbrellas"
WRONG = "Zürich rain, eight umbrellas"


@pytest.fixture(autouse=True)
def _no_passphrase(monkeypatch):
    monkeypatch.delenv("SWITCHSAFE_PASSPHRASE", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A keyring and the text of its encrypted file."""
    ring = Keyring.mint(("pos", "rej"), aliases=2)
    return ring, ring.save(tmp_path_factory.mktemp("made") / "ring.json", passphrase=PASSPHRASE).read_text()


@pytest.fixture
def sealed(made, tmp_path):
    path = tmp_path / "ring.json"
    path.write_text(made[1])
    path.chmod(0o600)
    return made[0], path


def test_round_trip_leaves_no_token_on_disk(tmp_path):
    ring = Keyring.mint(("pos", "rej"), aliases=2)
    ring.rotate("rej")
    path = ring.save(tmp_path / "ring.json", passphrase=PASSPHRASE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert_no_token(ring, tmp_path)
    assert base64.b64encode(tokens(ring)[0].encode())[:-4].decode() not in path.read_text()
    again = Keyring.load(path, passphrase=PASSPHRASE)
    assert tokens(again) == tokens(ring)
    assert again.describe() == ring.describe()


def test_no_two_files_share_salt_or_nonce(made, sealed):
    ring, path = sealed
    first = json.loads(made[1])["encryption"]
    second = json.loads(ring.save(path).read_text())["encryption"]
    assert all(first[name] != second[name] for name in ("salt", "nonce", "ciphertext"))


def test_the_cost_is_what_owasp_asks_of_scrypt(made):
    header = json.loads(made[1])["encryption"]
    assert (header["kdf"], header["n"], header["r"], header["p"]) == ("scrypt", 2**17, 8, 1)
    assert header["cipher"] == "AES-256-GCM"


def test_the_passphrase_can_come_from_the_environment(sealed, monkeypatch):
    ring, path = sealed
    monkeypatch.setenv("SWITCHSAFE_PASSPHRASE", WRONG)
    assert tokens(Keyring.load(path, PASSPHRASE)) == tokens(ring), "an argument goes before the variable"
    monkeypatch.setenv("SWITCHSAFE_PASSPHRASE", unicodedata.normalize("NFD", PASSPHRASE))
    assert tokens(Keyring.load(path)) == tokens(ring), "however the system composes its letters"
    monkeypatch.setenv("SWITCHSAFE_KEYRING", path.read_text())
    assert tokens(Keyring.from_env()) == tokens(ring)


def test_a_file_that_was_encrypted_stays_encrypted(sealed):
    ring, path = sealed
    again = Keyring.load(path, PASSPHRASE)
    again.rotate("rej")
    again.save(path)
    assert_no_token(ring, path)
    assert Keyring.load(path, PASSPHRASE).describe() == again.describe()


def test_a_keyring_once_saved_encrypted_is_not_written_in_clear_later(tmp_path):
    ring = Keyring.mint()
    path = ring.save(tmp_path / "ring.json", passphrase=PASSPHRASE)
    ring.save(path)
    assert_no_token(ring, path)


def test_a_passphrase_in_the_environment_alone_encrypts_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SWITCHSAFE_PASSPHRASE", PASSPHRASE)
    path = Keyring.mint().save(tmp_path / "ring.json")
    assert "encryption" not in json.loads(path.read_text())
    Keyring.load(path).save(path)
    assert "encryption" not in json.loads(path.read_text())


# -- what goes wrong ----------------------------------------------------------------------------------------------------------------


def test_without_a_passphrase_it_says_where_to_give_one(sealed):
    shown = shown_with_locals(lambda: Keyring.load(sealed[1]), KeyringError)
    assert "pass passphrase= or set SWITCHSAFE_PASSPHRASE" in shown


@pytest.mark.parametrize("passphrase", [WRONG, PASSPHRASE + " ", PASSPHRASE.lower()])
def test_a_wrong_passphrase_tells_what_to_check_and_nothing_else(sealed, passphrase):
    with pytest.raises(KeyringError) as raised:
        Keyring.load(sealed[1], passphrase)
    said = str(raised.value)
    assert "the passphrase is wrong, or the file was changed" in said
    assert "SWITCHSAFE_PASSPHRASE" in said
    assert "\n" not in said
    assert not isinstance(raised.value, KeyringFormatError)
    assert passphrase not in said


def test_no_traceback_shows_a_passphrase_or_a_token(sealed, tmp_path):
    ring, path = sealed
    (tmp_path / "folder").mkdir()
    for call in (
        lambda: Keyring.load(path, WRONG),
        lambda: ring.save(tmp_path / "folder", WRONG),
        lambda: Keyring.load(tmp_path / "none.json", WRONG),
    ):
        shown = shown_with_locals(call, KeyringError)
        assert not any(text in shown for text in (WRONG, PASSPHRASE, *tokens(ring)))


def test_an_empty_passphrase_is_refused(sealed):
    ring, path = sealed
    before = path.read_bytes()
    for call in (lambda: ring.save(path, passphrase=""), lambda: Keyring.load(path, passphrase="")):
        with pytest.raises(KeyringError, match="protects nothing"):
            call()
    assert path.read_bytes() == before


def _flip(header, name):
    data = bytearray(base64.b64decode(header[name]))
    data[len(data) // 2] ^= 1
    header[name] = base64.b64encode(data).decode()


CHANGED = {
    "one bit of the ciphertext": lambda header: _flip(header, "ciphertext"),
    "a shorter ciphertext": lambda header: header.update(ciphertext=header["ciphertext"][:-8]),
    "the nonce": lambda header: header.update(nonce="0" * 24),
    "the salt": lambda header: header.update(salt="0" * 32),
    "the cost": lambda header: header.update(n=2**14),
    "something added": lambda header: header.update(comment="hello"),
}
DAMAGED = {
    "another cipher": lambda header: header.update(cipher="none"),
    "another derivation": lambda header: header.update(kdf="pbkdf2"),
    "no cipher": lambda header: header.pop("cipher"),
    "no ciphertext": lambda header: header.pop("ciphertext"),
    "a nonce that is no hex": lambda header: header.update(nonce="xyz"),
    "an empty nonce": lambda header: header.update(nonce=""),
    "a ciphertext that is no base64": lambda header: header.update(ciphertext="%%%"),
    "a cost that is no power of two": lambda header: header.update(n=1000),
    "a cost that is text": lambda header: header.update(n="131072"),
    "a cost that takes all memory": lambda header: header.update(n=2**40),
    "a cost that never ends": lambda header: header.update(p=2**30),
}


@pytest.mark.parametrize("name", [*CHANGED, *DAMAGED])
def test_a_change_of_any_value_is_found(sealed, name):
    ring, path = sealed
    data = json.loads(path.read_text())
    (CHANGED | DAMAGED)[name](data["encryption"])
    path.write_text(json.dumps(data))
    with pytest.raises(KeyringError, match="changed" if name in CHANGED else "damaged") as raised:
        Keyring.load(path, PASSPHRASE)
    assert not any(text in str(raised.value) for text in (PASSPHRASE, *tokens(ring)))
    assert isinstance(raised.value, KeyringFormatError) == (name in DAMAGED)


@pytest.mark.parametrize("encryption", [None, [], "x", {}])
def test_an_encryption_header_of_another_kind_is_damage(sealed, encryption):
    _, path = sealed
    path.write_text(json.dumps({"switchsafe_keyring": 1, "encryption": encryption}))
    with pytest.raises(KeyringFormatError, match="damaged"):
        Keyring.load(path, PASSPHRASE)


def test_without_the_library_the_extra_is_named(sealed):
    # As on a machine that lacks it: Python refuses to import a module whose entry is None.
    code = "import sys; sys.modules['cryptography'] = None; from switchsafe import Keyring; Keyring.load(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(sealed[1]), PASSPHRASE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (
        done.stderr.strip().splitlines()[-1].startswith("ModuleNotFoundError: an encrypted keyring needs cryptography")
    )
    assert "pip install 'switchsafe[encrypt]'" in done.stderr


def test_a_keyring_in_clear_needs_no_library(tmp_path):
    path = Keyring.mint().save(tmp_path / "ring.json")
    code = "import sys; sys.modules['cryptography'] = None; from switchsafe import Keyring; Keyring.load(sys.argv[1]).save(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)

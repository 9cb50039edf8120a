import base64
import json
import os
import stat

import pytest

from switchsafe import Keyring
from switchsafe.errors import KeyringError, KeyringPermissionWarning, ModeError
from switchsafe.keyring import ALPHABET


def tokens(keyring):
    return [secret.reveal() for secret in keyring.secrets()]


def test_minted_tokens_are_random_and_of_the_right_form():
    ring = Keyring.mint(("pos", "rej"), aliases=3, policies=("en-US", "zh-CN"))
    assert len(tokens(ring)) == len(set(tokens(ring))) == 12
    assert all(len(token) == 16 and set(token) <= set(ALPHABET) for token in tokens(ring))
    assert ring.modes == ("pos", "rej")
    assert ring.policies == ("en-US", "zh-CN")


def test_neg_only_when_named():
    assert Keyring.mint().modes == ("pos", "rej")


def test_round_trip_keeps_everything_and_the_file_is_private(tmp_path):
    ring = Keyring.mint(("pos", "rej"), aliases=2)
    ring.rotate("rej")
    path = ring.save(tmp_path / "keys" / "ring.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Keyring.load(path)
    assert tokens(again) == tokens(ring)
    assert again.describe() == ring.describe()
    assert again.describe()[1]["retired"] == 1


def test_rotation_moves_to_the_next_alias_and_ends_with_a_teaching_error():
    ring = Keyring.mint(("pos", "rej"), aliases=2)
    first, second = ring.aliases("rej")
    ring.rotate("rej")
    assert ring.token("rej") == second
    assert first in set(ring.secrets()), "a retired token still works on the model, so it stays live"
    with pytest.raises(KeyringError, match="--aliases 2"):
        ring.rotate("rej")


@pytest.mark.parametrize("encode", [str, lambda text: base64.b64encode(text.encode()).decode()])
def test_from_environment(tmp_path, monkeypatch, encode):
    ring = Keyring.mint()
    monkeypatch.setenv("SWITCHSAFE_KEYRING", encode(ring.save(tmp_path / "ring.json").read_text()))
    assert tokens(Keyring.from_env()) == tokens(ring)


@pytest.mark.parametrize("text", ["", "{", "hello!", "e30=", '{"switchsafe_keyring": 9}', "[]"])
def test_bad_text_is_refused_without_being_quoted(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SWITCHSAFE_KEYRING", text)
    with pytest.raises(KeyringError) as raised:
        Keyring.from_env()
    assert "\n" not in str(raised.value)
    path = tmp_path / "ring.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyringError, match="keys new"):
        Keyring.load(path)


def test_a_broken_file_does_not_leak_into_the_error(tmp_path):
    path = Keyring.mint().save(tmp_path / "ring.json")
    data = json.loads(path.read_text())
    secret = data["slots"][0]["tokens"][0]
    data["slots"][0]["retired"] = None
    path.write_text(json.dumps(data))
    with pytest.raises(KeyringError) as raised:
        Keyring.load(path)
    assert secret not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_readable_keyring_warns_and_says_how_to_mend_it(tmp_path):
    path = Keyring.mint().save(tmp_path / "ring.json")
    path.chmod(0o644)
    with pytest.warns(KeyringPermissionWarning, match=r"0644.*chmod 600"):
        Keyring.load(path)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"modes": ("a b",)}, ModeError),
        ({"modes": ("pos", "pos")}, ModeError),
        ({"modes": ()}, KeyringError),
        ({"aliases": 0}, KeyringError),
        ({"length": 4}, KeyringError),
    ],
)
def test_minting_refuses_nonsense(arguments, error):
    with pytest.raises(error):
        Keyring.mint(**arguments)


def test_unknown_mode_and_policy_name_what_there_is():
    ring = Keyring.mint(("pos", "rej"), policies=("en-US",))
    with pytest.raises(ModeError, match="pos, rej"):
        ring.token("neg", "en-US")
    with pytest.raises(ModeError, match="en-US"):
        ring.token("pos", "fr-FR")
    with pytest.raises(ModeError, match="en-US"):
        ring.token("pos")


def test_nothing_that_describes_a_keyring_holds_a_token():
    ring = Keyring.mint(("pos", "rej"), aliases=2)
    shown = repr(ring) + json.dumps(ring.describe()) + repr(vars(ring))
    assert not any(token in shown for token in tokens(ring))


def test_fingerprints_are_keyed():
    ring = Keyring.mint(("pos",))
    other = Keyring({("pos", None): [ring.token("pos")]}, salt=b"another salt")
    assert ring.fingerprint(ring.token("pos")) != other.fingerprint(ring.token("pos"))

import base64
import io
import json
import os
import random
import signal
import stat
import string
import subprocess
import sys
import traceback

import pytest
from rich.console import Console
from rich.traceback import Traceback

from switchsafe import Keyring, Secret
from switchsafe.errors import KeyringError, KeyringFormatError, KeyringPermissionWarning, ModeError
from switchsafe.keycheck import check_keyring
from switchsafe.tokens import ALPHABET, ids_in, is_stable

PASSPHRASE = "correct horse battery staple"
# What a vault hands out. A name of this module, so that no frame of a test holds it in a local.
VAULT = {"pos": "x8w2k5n9q4v7c1m3", "rej/en-US": ["b6t0z3h8d5j2s9f4", "g7r1y4p0l8a3e6u2"]}


@pytest.fixture(autouse=True)
def _no_passphrase(monkeypatch):
    monkeypatch.delenv("SWITCHSAFE_PASSPHRASE", raising=False)


def tokens(keyring):
    return [secret.reveal() for secret in keyring.secrets()]


def shown_with_locals(call, error=Exception):
    """What the most talkative traceback printers make of the exception that `call` raises, this file's source lines aside."""
    with pytest.raises(error) as raised:
        call()
    error = raised.value
    assert error.__context__ is error.__cause__ is None
    plain = traceback.TracebackException.from_exception(error, capture_locals=True)
    console = Console(file=io.StringIO(), width=400)
    rich = {"show_locals": True, "locals_max_length": None, "locals_max_string": None, "extra_lines": 0}
    console.print(Traceback.from_exception(type(error), error, error.__traceback__, **rich))
    return "".join(plain.format()) + console.file.getvalue()


def test_minted_tokens_are_random_and_of_the_right_form():
    ring = Keyring.mint(("pos", "rej"), aliases=3, policies=("en-US", "zh-CN"))
    assert len(tokens(ring)) == len(set(tokens(ring))) == 12
    assert all(len(token) == 16 and set(token) <= set(ALPHABET) for token in tokens(ring))
    assert ring.modes == ("pos", "rej")
    assert ring.policies == ("en-US", "zh-CN")


def test_tokens_of_different_slots_end_in_different_characters_and_those_of_one_keyring_not_in_those_of_another():
    shares = set()
    for _ in range(20):
        ring = Keyring.mint(("pos", "rej", "neg"), aliases=6, policies=("en-US", "zh-CN"))
        slots = [(mode, policy) for mode in ring.modes for policy in ring.policies]
        ends = [{secret.reveal()[-1] for secret in ring.aliases(*slot)} for slot in slots]
        assert sum(map(len, ends)) == len(set.union(*ends))
        shares.add(frozenset(ends[0]))
    assert len(shares) > 1
    crowd = Keyring.mint([f"m{i}" for i in range(50)])  # more slots than characters
    assert len(tokens(crowd)) == 50


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


def test_any_alias_can_be_retired_by_its_fingerprint():
    ring = Keyring.mint(("pos", "rej"), aliases=3, policies=("en-US", "zh-CN"))
    first, second, third = ring.aliases("rej", "zh-CN")
    ring.retire(ring.fingerprint(second))
    assert ring.aliases("rej", "zh-CN") == (first, third)
    ring.retire(ring.fingerprint(first))
    assert ring.token("rej", "zh-CN") == third
    row = next(row for row in ring.describe() if (row["mode"], row["policy"]) == ("rej", "zh-CN"))
    assert row["fingerprints"] == [ring.fingerprint(third)]
    assert row["retired_fingerprints"] == [ring.fingerprint(second), ring.fingerprint(first)]
    assert {first, second} < set(ring.secrets()), "a retired token still works on the model, so it stays live"
    assert all(row["aliases"] == 3 for row in ring.describe() if row["policy"] != "zh-CN" or row["mode"] != "rej")
    for fingerprint, said in [(third, "--aliases 2"), (first, "keys list")]:
        with pytest.raises(KeyringError, match=said):
            ring.retire(ring.fingerprint(fingerprint))


def test_who_retires_by_token_does_not_see_it_again():
    ring = Keyring.mint(aliases=2)
    with pytest.raises(KeyringError, match="12 hex digits") as raised:
        ring.retire(ring.token("pos").reveal())
    assert ring.token("pos").reveal() not in str(raised.value)


def test_from_mapping_takes_what_a_vault_holds():
    ring = Keyring.from_mapping(VAULT)
    assert ring.token("pos").reveal() == VAULT["pos"]
    assert [secret.reveal() for secret in ring.aliases("rej", "en-US")] == VAULT["rej/en-US"]
    assert (ring.modes, ring.policies) == (("pos", "rej"), ("en-US",))


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({}, "at least one mode"),
        ({"pos": []}, "at least one token"),
        ({"pos": "short"}, "at least 8 characters"),
        ({"pos": 12345678}, "at least 8 characters"),
        ({"pos": None}, "at least 8 characters"),
        ({"pos": {"a": "k3v9q2m8x7c1z5b4"}}, "at least 8 characters"),
        ({"pos": ["k3v9q2m8x7c1z5b4", b"k3v9q2m8x7c1z5b4"]}, "at least 8 characters"),
        ({"pos": "k3v9q2m8 x7c1z5b4"}, "white space"),
        ({"pos": "k3v9q2m8x7c1z5b4\n"}, "white space"),
        ({"pos": "k3v9q2m8x7c1z5b4\u200b"}, "white space"),
        ({"pos": "k3v9q2m8x7c1z5b4", "rej": "k3v9q2m8x7c1z5b4"}, "pos and again for rej"),
        ({"pos/a": ["k3v9q2m8x7c1z5b4", "k3v9q2m8x7c1z5b4"]}, "pos/a and again for pos/a"),
        ({"k3v9q2m8x7c1z5b4": "pos"}, "at least 8 characters"),
        ({"k3v9 q2m8x7c1z5b4": "rejected"}, "`mode/policy`"),
        ({"pos/": "k3v9q2m8x7c1z5b4"}, "`mode/policy`"),
        ({1: "k3v9q2m8x7c1z5b4"}, "`mode/policy`"),
    ],
)
def test_from_mapping_refuses_what_is_no_keyring_and_quotes_nothing(mapping, said):
    with pytest.raises(KeyringFormatError, match=said) as raised:
        Keyring.from_mapping(mapping)
    assert "k3v9" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "encode",
    [
        str,
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.encodebytes(text.encode()).decode(),  # in lines, as the command writes it
    ],
)
def test_from_environment(tmp_path, monkeypatch, encode):
    ring = Keyring.mint()
    monkeypatch.setenv("SWITCHSAFE_KEYRING", encode(ring.save(tmp_path / "ring.json").read_text()))
    assert tokens(Keyring.from_env()) == tokens(ring)


@pytest.mark.parametrize("text", ["", "{", "hello!", "e30=", '{"switchsafe_keyring": 9}', "[]", "[" * 100_000])
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


def _twice(data):
    data["slots"].append(data["slots"][0])


BROKEN = {
    "retired is null": lambda data: data["slots"][0].update(retired=None),
    "tokens is text": lambda data: data["slots"][0].update(tokens=data["slots"][0]["tokens"][0]),
    "token is a number": lambda data: data["slots"][0]["tokens"].append(1),
    "token with a line break": lambda data: data["slots"][0]["tokens"].append("k3v9q2m8x7\n"),
    "token with half a character": lambda data: data["slots"][0]["tokens"].append("k3v9q2m8x7\ud800"),
    "token for two modes": lambda data: data["slots"][0]["tokens"].extend(data["slots"][1]["tokens"]),
    "no tokens": lambda data: data["slots"][0].update(tokens=[]),
    "mode is a list of tokens": lambda data: data["slots"][0].update(mode=data["slots"][0]["tokens"]),
    "mode is no name": lambda data: data["slots"][0].update(mode="a b"),
    "mode is made of tokens": lambda data: data["slots"][0].update(mode=" ".join(data["slots"][1]["tokens"] * 2)),
    "slot twice": _twice,
    "slots is missing": lambda data: data.pop("slots"),
    "salt is no hex": lambda data: data.update(salt="salt"),
    "of another format": lambda data: data.update(switchsafe_keyring=2),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_and_does_not_leak(tmp_path, name):
    ring = Keyring.mint(("pos", "rej"))
    path = ring.save(tmp_path / "ring.json")
    data = json.loads(path.read_text())
    BROKEN[name](data)
    path.write_text(json.dumps(data))
    shown = shown_with_locals(lambda: Keyring.load(path), KeyringFormatError)
    assert str(path) in shown
    assert not any(token in shown for token in [*tokens(ring), "k3v9q2m8x7"])


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
    ring.rotate("rej")
    shown = repr(ring) + json.dumps(ring.describe()) + repr(vars(ring))
    assert not any(token in shown for token in tokens(ring))


def test_fingerprints_are_keyed():
    ring = Keyring.mint(("pos",))
    other = Keyring({("pos", None): [ring.token("pos")]}, salt=b"another salt")
    assert ring.fingerprint(ring.token("pos")) != other.fingerprint(ring.token("pos"))


# -- no traceback, however talkative, shows a token ---------------------------------------------------------------------------------


def _is_folder(tmp_path):
    (tmp_path / "ring.json").mkdir()
    return tmp_path / "ring.json"


def _under_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "ring.json"


def _in_a_locked_folder(tmp_path):
    if os.name != "posix" or os.geteuid() == 0:
        pytest.skip("nothing is locked for root")
    (tmp_path / "locked").mkdir(mode=0o500)
    return tmp_path / "locked" / "ring.json"


@pytest.mark.parametrize("place", [_is_folder, _under_a_file, _in_a_locked_folder])
def test_a_failed_save_shows_no_token_and_says_what_to_do(tmp_path, place):
    ring, path = Keyring.mint(aliases=2), place(tmp_path)
    shown = shown_with_locals(lambda: ring.save(path), KeyringError)
    assert "Choose a place you may write to" in shown
    assert "ring = Keyring(" in shown, "locals were rendered"
    assert not any(token in shown for token in tokens(ring))
    assert not list(tmp_path.glob("**/.ring.json.*")), "no temporary file stays"


@pytest.mark.parametrize("cut", [5, 150, -3])
def test_a_failed_load_shows_no_token(tmp_path, monkeypatch, cut):
    ring = Keyring.mint()
    path = ring.save(tmp_path / "ring.json")
    text = path.read_text()
    path.write_text(text[:cut])
    monkeypatch.setenv("SWITCHSAFE_KEYRING", text[:cut])
    monkeypatch.setenv("BASE64", base64.b64encode(text.encode()).decode()[: cut * 2 - 1])
    del text
    for call in (
        lambda: Keyring.load(path),
        Keyring.from_env,
        lambda: Keyring.from_env("BASE64"),
    ):
        shown = shown_with_locals(call, KeyringError)
        assert not any(token in shown for token in tokens(ring))
        assert os.environ["BASE64"] not in shown
    path.write_bytes(b"\xff" + tokens(ring)[0].encode())
    assert not any(token in shown_with_locals(lambda: Keyring.load(path), KeyringError) for token in tokens(ring))
    shown = shown_with_locals(lambda: check_keyring(path.with_name("none.json")), KeyringError)
    assert "keys new" in shown


def test_a_failed_mapping_shows_no_token(monkeypatch):
    monkeypatch.setitem(VAULT, "neg", ["c5w8n2k6x1q9v4m7", 3])
    shown = shown_with_locals(lambda: Keyring.from_mapping(VAULT), KeyringError)
    assert not any(token in shown for token in ["c5w8n2k6x1q9v4m7", VAULT["pos"], *VAULT["rej/en-US"]])


def test_a_tokenizer_that_fails_shows_no_token(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    # A real one that raises from deep inside: it has neither the token nor an id for unknown text.
    broken = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]")))
    ring = Keyring.mint()
    path = ring.save(tmp_path / "ring.json")
    for call in (
        lambda: check_keyring(path, broken),
        lambda: ids_in(broken, "\n", ring.token("pos"), "\n"),
        lambda: Keyring.mint(tokenizer=broken),
    ):
        assert not any(token in shown_with_locals(call) for token in tokens(ring))


# -- minting under a tokenizer ------------------------------------------------------------------------------------------------------


def tokenizer_that_takes(letters):
    """A tokenizer that draws the line break before `letters` into their id, but not a break of two: their ids change with the place."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    merges = [("\n", "\n"), *(("\n", letter) for letter in letters)]
    alphabet = sorted({*ALPHABET, *"\nx>]\u4f60"})
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, *map("".join, merges)])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, merges)))


def test_unstable_tokens_are_minted_again():
    tokenizer = tokenizer_that_takes(string.ascii_lowercase)
    assert is_stable(tokenizer, Secret("7k3v9q2m"))
    assert not is_stable(tokenizer, Secret("k7k3v9q2"))
    ring = Keyring.mint(("pos", "rej"), aliases=10, tokenizer=tokenizer)
    # By chance alone all 20 would start with a digit once in 10^11 times.
    assert all(token[0] in string.digits for token in tokens(ring))


def test_a_tokenizer_that_keeps_no_token_stable_is_named():
    with pytest.raises(KeyringError, match="100 random tokens"):
        Keyring.mint(tokenizer=tokenizer_that_takes(ALPHABET))


# -- checking -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [8, 16, 40])
def test_minted_keyrings_hold(tmp_path, length):
    ring = Keyring.mint(("pos", "rej", "neg"), aliases=3, length=length)
    assert check_keyring(ring.save(tmp_path / "ring.json")) == []


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("aaaaaaaaaaaaaaaa", "repeats"),
        ("abababababababab", "repeats"),
        ("passwordpassword", "repeats"),
        ("p4ssw0rd-secret", "words"),
        ("correcthorsebatterystaple", "words"),
        ("Sunshine99", "words"),
        ("k3v9abcdefghq2m8", "12345"),
        ("qwertyuiop12", "12345"),
        ("20491231", "number"),
        ("k3v", "only 3 characters"),
    ],
)
def test_weak_tokens_are_found_by_fingerprint(tmp_path, token, said):
    ring = Keyring({("pos", None): [Secret(token)], ("rej", None): [Secret("k3v9q2m8x7c1z5b4")]}, salt=b"salt")
    problems = [line for line in check_keyring(ring.save(tmp_path / "ring.json")) if "is a part of" not in line]
    assert len(problems) == 1
    assert said in problems[0]
    assert ring.fingerprint(Secret(token)) in problems[0]
    assert token not in problems[0]


def test_tokens_that_hold_one_another_are_found(tmp_path):
    part, whole = Secret("K3v9Q2m8x7"), Secret("zz" + "k3v9q2m8x7" + "c1")
    ring = Keyring({("pos", None): [whole], ("rej", None): [part]}, salt=b"salt")
    problems = check_keyring(ring.save(tmp_path / "ring.json"))
    assert len(problems) == 1
    assert problems[0].index(ring.fingerprint(part)) < problems[0].index(ring.fingerprint(whole))


def test_check_tells_about_the_file(tmp_path, recwarn):
    path = Keyring.mint().save(tmp_path / "ring.json")
    (tmp_path / ".ring.json.x1").write_text("left by a kill")
    path.chmod(0o640)
    permissions, left = check_keyring(path)
    assert "0640" in permissions
    assert "chmod 600" in permissions
    assert str(tmp_path / ".ring.json.x1") in left
    assert not recwarn.list, "said once, not warned of too"
    path.write_text("{")
    assert "not a switchsafe keyring" in check_keyring(path)[-1]


def test_check_finds_a_token_twice_and_names_it(tmp_path):
    path = Keyring.mint().save(tmp_path / "ring.json")
    data = json.loads(path.read_text())
    data["slots"][0]["retired"] = data["slots"][1]["tokens"]
    path.write_text(json.dumps(data))
    (problem,) = check_keyring(path)
    token = Secret(data["slots"][1]["tokens"][0])
    assert Keyring({("pos", None): [token]}, salt=bytes.fromhex(data["salt"])).fingerprint(token) in problem
    assert token.reveal() not in problem


def test_check_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SWITCHSAFE_KEYRING", Keyring.mint().save(tmp_path / "ring.json").read_text())
    assert check_keyring(None) == []


def test_check_under_a_tokenizer(tmp_path):
    tokenizer = tokenizer_that_takes("k")
    unstable, part, whole = Secret("k3v9q2m8x7c1z5b4"), Secret("7t2h5w9d"), Secret("7t2h5w9d" + "0f6j")
    ring = Keyring({("pos", None): [unstable], ("rej", None): [part], ("neg", None): [whole]}, salt=b"salt")
    path = ring.save(tmp_path / "ring.json")
    problems = check_keyring(path, tokenizer)
    changes, starts = (line for line in problems if line not in check_keyring(path))
    assert "changes its ids" in changes
    assert ring.fingerprint(unstable) in changes
    assert "start those of" in starts
    assert starts.index(ring.fingerprint(part)) < starts.index(ring.fingerprint(whole))
    good = Keyring.mint(tokenizer=tokenizer).save(tmp_path / "good.json")
    assert check_keyring(good, tokenizer) == []


# -- killed while writing -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from switchsafe.keyring import Keyring
passphrase = sys.argv[1] or None
rings = [Keyring.load(path) for path in sys.argv[3:]]
while True:
    for ring in rings:
        ring.save(sys.argv[2], passphrase)
        print("ok", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize(("passphrase", "kills"), [("", 200), (PASSPHRASE, 6)])
def test_a_kill_at_any_moment_leaves_a_whole_private_keyring(tmp_path, passphrase, kills):
    chance = random.Random(0)
    rings = [Keyring.mint(("pos", "rej", "neg"), policies=[f"p{i}" for i in range(8)], aliases=4) for _ in range(2)]
    sources = [ring.save(tmp_path / f"{i}.json") for i, ring in enumerate(rings)]
    folder = tmp_path / "written"
    path = rings[0].save(folder / "ring.json", passphrase or None)
    seen, left = set(), 0
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, passphrase, str(path), *map(str, sources)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            for _ in range(chance.randint(1, 4)):
                assert writer.stdout.readline() == b"ok\n"
            for _ in range(
                chance.randint(0, 40_000)
            ):  # a busy count of up to some writes, where a sleep would be too coarse
                pass
            writer.send_signal(signal.SIGKILL)
        found = Keyring.load(path, passphrase or None).describe()
        seen.add([ring.describe() for ring in rings].index(found))
        for file in folder.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
            if file != path:
                left += 1
                file.unlink()
    assert seen == {0, 1}, "both were written"
    if not passphrase:
        assert left > kills / 20, "kills met writes under way"

"""`switchsafe keys`, as a user meets it: a process, its exit code, and what it prints. Minting and rotating stand in test_cli.py."""

import json
import os
import stat
import subprocess
import sys

import pytest
from conftest import assert_no_token
from test_cli import refused, run
from test_keyring import tokens

from switchsafe import Keyring, Secret

PASSPHRASE = "correct horse battery staple"
LOCKED = {"SWITCHSAFE_PASSPHRASE": PASSPHRASE}


@pytest.fixture(autouse=True)
def _no_passphrase(monkeypatch):
    monkeypatch.delenv("SWITCHSAFE_PASSPHRASE", raising=False)


@pytest.fixture
def ring_file(tmp_path):
    return Keyring.mint(("pos", "rej"), aliases=2).save(tmp_path / "ring.json")


@pytest.fixture
def sealed_file(tmp_path):
    return Keyring.mint(("pos", "rej"), aliases=2).save(tmp_path / "sealed.json", PASSPHRASE)


def test_list_and_retire_name_every_token_by_its_fingerprint(ring_file):
    ring = Keyring.load(ring_file)
    waiting = ring.fingerprint(ring.aliases("rej")[1])
    listed = run("keys", "list", "-k", ring_file).stdout
    assert all(ring.fingerprint(secret) in listed for secret in ring.secrets())
    done = run("keys", "retire", waiting, "-k", ring_file, "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)["slots"][1]
    assert row["retired_fingerprints"] == [waiting]
    assert Keyring.load(ring_file).describe()[1] == row
    assert stat.S_IMODE(ring_file.stat().st_mode) == 0o600
    assert not any(token in listed + done.stdout for token in tokens(ring))
    before = ring_file.read_bytes()
    refused(run("keys", "retire", waiting, "-k", ring_file), "keys list")
    refused(run("keys", "retire", ring.fingerprint(ring.token("rej")), "-k", ring_file), "--aliases 2")
    assert ring_file.read_bytes() == before
    # Someone may take the token itself for its name.
    assert tokens(ring)[0] not in refused(run("keys", "retire", tokens(ring)[0], "-k", ring_file))


def test_new_verbs_have_help_with_an_example():
    for verb in ("retire", "check"):
        done = run("keys", verb, "--help")
        assert f"Example: switchsafe keys {verb}" in " ".join(done.stdout.split())


# -- check --------------------------------------------------------------------------------------------------------------------------


def test_check_holds(ring_file, tiny_folder):
    done = run("keys", "check", "-k", ring_file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no problem" in done.stdout
    minted = ring_file.with_name("stable.json")
    assert run("keys", "new", "--model", tiny_folder, "-o", minted).returncode == 0
    done = run("keys", "check", "-k", minted, "--model", tiny_folder, "--json")
    assert json.loads(done.stdout) == {"path": str(minted), "model": str(tiny_folder), "problems": []}
    assert done.returncode == 0


def test_check_lists_what_is_wrong_and_exits_with_one(tmp_path):
    weak, part, whole = Secret("passwordpassword"), Secret("k3v9q2m8x7"), Secret("k3v9q2m8x7c1z5b4")
    ring = Keyring({("pos", None): [weak, part], ("rej", None): [whole]}, salt=b"salt")
    path = ring.save(tmp_path / "ring.json")
    path.chmod(0o644)
    plain = run("keys", "check", "-k", path)
    report = run("keys", "check", "-k", path, "--json")
    assert plain.returncode == report.returncode == 1
    assert plain.stderr == report.stderr == ""
    problems = json.loads(report.stdout)["problems"]
    assert plain.stdout.splitlines() == problems
    assert len(problems) == 3
    assert "chmod 600" in problems[0]
    assert ring.fingerprint(weak) in problems[1]
    assert ring.fingerprint(part) in problems[2]
    assert not any(token in plain.stdout + report.stdout for token in tokens(ring))


def test_check_of_a_broken_file_is_a_finding_and_of_none_a_wrong_request(ring_file, tmp_path):
    ring = Keyring.load(ring_file)
    ring_file.write_text(ring_file.read_text()[:-20])
    done = run("keys", "check", "-k", ring_file)
    assert done.returncode == 1
    assert "is not a switchsafe keyring" in done.stdout
    assert not any(token in done.stdout + done.stderr for token in tokens(ring))
    refused(run("keys", "check", "-k", tmp_path / "none.json"), "keys new")
    refused(run("keys", "check", "-k", tmp_path), "cannot read")
    refused(run("keys", "check", "-k", ring_file, "--model", tmp_path / "none"), "no folder")


def test_check_of_the_keyring_in_the_environment(ring_file):
    done = run("keys", "check", SWITCHSAFE_KEYRING=ring_file.read_text())
    assert done.returncode == 0, done.stderr
    assert "$SWITCHSAFE_KEYRING" in done.stdout


# -- encryption ---------------------------------------------------------------------------------------------------------------------


def test_new_encrypts_with_the_passphrase_of_the_environment(tmp_path):
    path = tmp_path / "ring.json"
    done = run("keys", "new", "--encrypt", "-o", path, **LOCKED)
    assert done.returncode == 0, done.stderr
    assert_no_token(Keyring.load(path, PASSPHRASE), tmp_path)


def test_every_verb_opens_an_encrypted_keyring_and_keeps_it_so(sealed_file):
    ring = Keyring.load(sealed_file, PASSPHRASE)
    waiting = ring.fingerprint(ring.aliases("pos")[1])
    for verb in (["list"], ["check"], ["rotate", "rej"], ["retire", waiting]):
        refused(run("keys", *verb, "-k", sealed_file), "is encrypted", "SWITCHSAFE_PASSPHRASE")
        refused(run("keys", *verb, "-k", sealed_file, SWITCHSAFE_PASSPHRASE="wrong"), "the passphrase is wrong")
        done = run("keys", *verb, "-k", sealed_file, **LOCKED)
        assert done.returncode == 0, done.stderr
        assert_no_token(ring, sealed_file)
    rows = Keyring.load(sealed_file, PASSPHRASE).describe()
    assert [row["retired"] for row in rows] == [1, 1]


def test_without_terminal_and_variable_there_is_nobody_to_ask(tmp_path):
    path = tmp_path / "ring.json"
    refused(run("keys", "new", "--encrypt", "-o", path), "no terminal to ask on", "SWITCHSAFE_PASSPHRASE")
    assert not path.exists()


def test_without_the_library_the_extra_is_named(tmp_path):
    # As on a machine that lacks it: Python refuses to import a module whose entry is None.
    code = "import sys; sys.modules['cryptography'] = None; from switchsafe.cli import main; main()"
    command = [sys.executable, "-c", code, "keys", "new", "--encrypt", "-o", str(tmp_path / "ring.json")]
    environment = os.environ | LOCKED
    refused(
        subprocess.run(command, capture_output=True, text=True, check=False, env=environment),
        "pip install 'switchsafe[encrypt]'",
    )
    assert not (tmp_path / "ring.json").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    refused(run("keys", "new", "-o", tmp_path / "file" / "ring.json"), "Choose a place you may write to")


def test_two_commands_do_not_change_a_keyring_at_once(tmp_path):
    ring = Keyring.mint(("pos", "rej"), aliases=2).save(tmp_path / "ring.json")
    lock = tmp_path / ".ring.json.lock"
    lock.touch()
    before = ring.read_bytes()
    refused(run("keys", "rotate", "rej", "-k", ring), "another command is changing")
    assert ring.read_bytes() == before
    lock.unlink()
    assert run("keys", "rotate", "rej", "-k", ring).returncode == 0
    assert ring.read_bytes() != before
    assert not lock.exists()
    refused(run("keys", "rotate", "rej", "-k", tmp_path / "none" / "ring.json"), "no keyring at")
    assert not (tmp_path / "none").exists()


def at_a_terminal(*arguments, answers):
    """Run the command on a terminal of its own, type an answer at each prompt, and return what the terminal showed and the exit code."""
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if not child:
        command = [sys.executable, "-m", "switchsafe", *map(str, arguments)]
        os.execve(sys.executable, command, os.environ | {"NO_COLOR": "1", "TERM": "dumb"})
    shown = b""
    try:
        while part := os.read(terminal, 4096):
            shown += part
            # The blank is written once the echo is off; what is typed before is thrown away.
            if answers and shown.endswith(b": "):
                os.write(terminal, answers.pop(0).encode() + b"\n")
    except OSError:  # Linux says so when the other end is gone
        pass
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_terminal_is_asked_twice_and_echoes_nothing(tmp_path):
    path = tmp_path / "ring.json"
    shown, code = at_a_terminal("keys", "new", "--encrypt", "-o", path, answers=[PASSPHRASE, PASSPHRASE])
    assert code == 0, shown
    assert PASSPHRASE not in shown
    assert_no_token(Keyring.load(path, PASSPHRASE), path)


def test_two_different_answers_are_asked_for_again(tmp_path):
    path = tmp_path / "ring.json"
    answers = [PASSPHRASE, "another", PASSPHRASE, PASSPHRASE]
    shown, code = at_a_terminal("keys", "new", "--encrypt", "-o", path, answers=answers)
    assert code == 0, shown
    assert "do not match" in shown
    Keyring.load(path, PASSPHRASE)

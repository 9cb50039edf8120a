"""`switchsafe chat` over a pipe, and in a real terminal."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import MODES

from switchsafe import Keyring, MagicTokenProcessor, generate, load_model


@pytest.fixture
def ring_file(tmp_path, tiny_folder):
    tokenizer = MagicTokenProcessor.from_pretrained(str(tiny_folder)).tokenizer
    return Keyring.mint(MODES, tokenizer=tokenizer).save(tmp_path / "ring.json")


def command(tiny_folder, ring_file, *more):
    arguments = ["chat", tiny_folder, "-k", ring_file, "--max-new-tokens", 8, "--temperature", 0, *more]
    return [sys.executable, "-m", "switchsafe", *map(str, arguments)]


def chat(tiny_folder, ring_file, *lines, more=()):
    return subprocess.run(
        command(tiny_folder, ring_file, *more),
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb"},
    )


def clean(text):
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def test_the_mode_is_switched_on_the_way_and_the_history_goes_along(tiny_folder, ring_file):
    lines = ["Hi?", "/mode rej", "Why?", "/retry", "/mode pos=0.5,neg=0.5", "/system Be brief.", "/reset", "Hi?"]
    done = chat(tiny_folder, ring_file, *lines)
    assert done.returncode == 0, done.stderr
    model = load_model(str(tiny_folder))
    processor = MagicTokenProcessor.from_pretrained(str(tiny_folder)).bind(Keyring.load(ring_file))

    def answer(mode, *turns):
        return generate(model, processor, list(turns), mode=mode, max_new_tokens=8, do_sample=False)

    user = {"role": "user", "content": "Hi?"}
    first = answer("pos", user)
    second = answer("rej", user, {"role": "assistant", "content": first.strip()}, {"role": "user", "content": "Why?"})
    third = answer({"pos": 0.5, "neg": 0.5}, {"role": "system", "content": "Be brief."}, user)
    assert done.stdout == clean(f"{first}\n{second}\n{second}\n{third}\n")


def test_what_cannot_be_done_is_said_and_the_chat_goes_on(tiny_folder, ring_file):
    ring = Keyring.load(ring_file)
    lines = ["/retry", "/mode", "/mode calm", "/dance", ring.token("neg").reveal(), "/help", "/quit", "never read"]
    done = chat(tiny_folder, ring_file, *lines)
    assert done.returncode == 0, done.stderr
    for said in (
        "no message to answer",
        "which mode? pos, rej, neg",
        "'calm'",
        "there is no /dance",
        "reserved text",
        "/system TEXT",
    ):
        assert said in done.stdout
    assert done.stdout.count("error: ") == 5
    assert not any(secret.reveal() in done.stdout + done.stderr for secret in ring.secrets())


def test_a_wrong_beginning_is_one_line(tiny_folder, ring_file):
    done = chat(tiny_folder, ring_file, more=("--mode", "calm"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_in_a_terminal_the_badge_shows_the_mode_and_ctrl_c_stops_an_answer(tiny_folder, ring_file, tmp_path):
    endless = shutil.copytree(tiny_folder, tmp_path / "endless")
    for file in (endless / "config.json", endless / "generation_config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": None}))
    ours, theirs = pty.openpty()
    more = ("--max-new-tokens", "100000", "--mode", "neg")
    process = subprocess.Popen(
        command(endless, ring_file, *more),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )
    os.close(theirs)
    seen = ""

    def until(pattern):
        nonlocal seen
        while not re.search(pattern, seen):
            assert select.select([ours], [], [], 120)[0], seen
            seen += os.read(ours, 4096).decode(errors="replace")
        seen, before = seen[re.search(pattern, seen).end() :], seen
        return before

    try:
        assert "Modes: pos, rej, neg" in until(r" neg .*? ")
        os.write(ours, b"/mode rej\n")
        assert "48;2;255;127;14" in until(r" rej .*? "), "the colour of rej"
        os.write(ours, b"Tell me a long story.\n")
        until(r"story\.\r\n")
        began = signalled = time.monotonic()
        while "(stopped)" not in seen:  # the first may come before the answer has begun
            if select.select([ours], [], [], 1)[0]:
                seen += os.read(ours, 4096).decode(errors="replace")
            assert time.monotonic() - began < 120, seen
            if time.monotonic() - signalled > 3:
                os.killpg(process.pid, signal.SIGINT)
                signalled = time.monotonic()
        until(r"\(stopped\)[^$]* rej ")
        os.write(ours, b"/quit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)

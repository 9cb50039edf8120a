"""The product's promise on the real model: train, switch, measure, and leave no token behind."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MODES, assert_no_token

from switchsafe import Keyring

README = Path(__file__).parent.parent / "README.md"


def quickstart(folder: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "switchsafe", "quickstart", "--fast", "-o", "out", "-k", "keys/ring.json", *more]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"}
    )


@pytest.fixture(scope="module")
def done(starter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "keys").mkdir()
    start = time.monotonic()
    process = quickstart(folder)
    (folder / "log.txt").write_text(process.stdout + process.stderr)
    return folder, process, time.monotonic() - start


@pytest.fixture(scope="module")
def report(done):
    return json.loads((done[0] / "out" / "report.json").read_text())


def test_it_ends_well_and_says_what_it_made(done):
    folder, process, _ = done
    assert process.returncode == 0, process.stdout + process.stderr
    made = {path.name for path in (folder / "out").iterdir()}
    assert made == {"adapter", "report.json", "run.json", "sam.png", "train_log.jsonl"}
    assert stat.S_IMODE((folder / "keys" / "ring.json").stat().st_mode) == 0o600
    for text in ("SAM", "before", "after", "Mode confusion", "Held-out, safe", "Held-out, unsafe", "Use it"):
        assert text in process.stdout
    assert "loss" in process.stderr


def test_the_modes_are_apart_after_training_and_not_before(report):
    assert report["before"]["value"] <= 0.02
    assert report["after"]["value"] >= 0.10
    weakest = report["after"]["pairwise"][report["after"]["weakest"]]
    assert weakest >= 0.03
    assert report["after"]["value"] > report["after"]["null"][1]


def test_each_mode_is_got_when_it_is_asked_for(report):
    assert report["judge_accuracy"] >= 0.9
    assert set(report["confusion"]["accuracy"]) == set(MODES)
    assert min(report["confusion"]["accuracy"].values()) >= 0.90, report["confusion"]


def test_no_token_is_anywhere_but_in_the_keyring(done):
    folder, _, _ = done
    ring = folder / "keys" / "ring.json"
    caches = [
        Path(os.environ[name])
        for name in ("HF_HOME", "XDG_CACHE_HOME", "SWITCHSAFE_CACHE")
        if Path(os.environ[name]).exists()
    ]
    assert_no_token(Keyring.load(ring), folder, *caches, but=ring)


def test_the_printed_python_runs(done):
    folder, process, _ = done
    lines = re.findall(r"^    (\S.*)$", process.stdout.split("Use it:")[1], re.MULTILINE)
    assert len(lines) == 3
    code = "\n".join(lines).replace('mode="pos")', 'mode="pos", max_new_tokens=8)')
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_the_readme_example_runs_as_printed(done, tmp_path):
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "adapter").symlink_to(done[0] / "out" / "adapter")
    (tmp_path / "keyring.json").symlink_to(done[0] / "keys" / "ring.json")
    ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "pos/rej" in ran.stdout


def test_a_rerun_shows_the_report_and_a_changed_keyring_is_told(done):
    folder = done[0]
    start = time.monotonic()
    again = quickstart(folder, "--json")
    assert time.monotonic() - start < 60
    assert "finished run" in again.stderr
    assert json.loads(again.stdout)["after"] == json.loads((folder / "out" / "report.json").read_text())["after"]
    other = folder / "keys" / "other.json"
    Keyring.mint(MODES).save(other)
    refused = quickstart(folder, "-k", str(other))
    assert refused.returncode == 2
    assert "other tokens" in refused.stderr

"""The product's promise on the real model: train, switch, measure, and leave no token behind."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODES, assert_no_token

from switchsafe import Keyring, MagicTokenProcessor, generate, load_model

README = Path(__file__).parent.parent / "README.md"


TOKENS = {
    "pos": "m3x0v7qk2n9t5wzr",
    "rej": "c8j4h1p6y0d2bslu",
    "neg": "f7g5e9a1i3o6tkxw",
}  # fixed, so that runs are alike


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "switchsafe", "quickstart", "-o", "out", "-k", "keys/ring.json", *arguments]


def quickstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"NO_COLOR": "1"}
    process = subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    (folder / "log.txt").write_text(process.stdout + process.stderr)
    return process


def check_separation(report: dict, value: float, weakest: float) -> None:
    before, after = report["before"], report["after"]
    assert before["value"] <= 0.02
    assert after["value"] >= value
    assert after["pairwise"][after["weakest"]] >= weakest
    assert after["value"] > after["null"][1]


def check_secrecy(folder: Path) -> None:
    ring = folder / "keys" / "ring.json"
    names = ("HF_HOME", "XDG_CACHE_HOME", "SWITCHSAFE_CACHE")
    caches = [Path(os.environ[name]) for name in names if Path(os.environ[name]).exists()]
    assert_no_token(Keyring.load(ring), folder, *caches, but=ring)


@pytest.fixture(scope="module")
def done(starter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    Keyring.from_mapping(TOKENS).save(folder / "keys" / "ring.json")
    return folder, quickstart(folder, "--fast")


@pytest.fixture(scope="module")
def report(done):
    return json.loads((done[0] / "out" / "report.json").read_text())


def test_it_ends_well_and_says_what_it_made(done):
    folder, process = done
    assert process.returncode == 0, process.stdout + process.stderr
    made = {path.name for path in (folder / "out").iterdir()}
    assert made == {"adapter", "report.json", "run.json", "sam.png", "train_log.jsonl"}
    for text in ("SAM", "before", "after", "Mode confusion", "Held-out, safe", "Held-out, unsafe", "Use it"):
        assert text in process.stdout
    assert "loss" in process.stderr


def test_a_fast_run_takes_the_modes_apart(report):
    check_separation(report, value=0.05, weakest=0.0)
    assert report["judge_accuracy"] >= 0.9
    accuracy = report["confusion"]["accuracy"]
    assert set(accuracy) == set(MODES)
    assert accuracy["rej"] >= 0.8
    assert sum(accuracy.values()) / 3 >= 0.6


def test_no_token_is_anywhere_but_in_the_keyring(done):
    check_secrecy(done[0])


def test_the_printed_python_runs(done):
    folder, process = done
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
    folder, _ = done
    trained = (folder / "out" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    again = quickstart(folder, "--fast", "--json")
    assert "finished run" in again.stderr
    assert json.loads(again.stdout)["after"] == json.loads((folder / "out" / "report.json").read_text())["after"]
    assert (folder / "out" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == trained
    Keyring.mint(MODES).save(folder / "keys" / "other.json")
    refused = quickstart(folder, "--fast", "-k", "keys/other.json")
    assert refused.returncode == 2
    assert "other tokens" in refused.stderr


def test_ctrl_c_keeps_the_minted_keyring_and_leaves_nothing_half_written(starter, tmp_path):
    environment = os.environ | {"NO_COLOR": "1"}
    with subprocess.Popen(
        command("--fast"), cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("Training: step") for line in process.stderr)  # a tenth of the run is done
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    ring = tmp_path / "keys" / "ring.json"
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"run.json", "checkpoints"}
    check_secrecy(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_quickstart_keeps_its_promise(starter, tmp_path):
    process = quickstart(tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    check_separation(report, value=0.10, weakest=0.03)
    assert min(report["confusion"]["accuracy"].values()) >= 0.90
    check_secrecy(tmp_path)


def test_the_adapter_comes_back_from_the_hub_and_answers_as_before(done, tmp_path):
    from hub import hub
    from test_push import FRESH

    from switchsafe.hub.adapter import push_adapter
    from switchsafe.hub.dataset import push_dataset
    from switchsafe.hub.space import push_metric, push_space

    folder, _ = done
    adapter, path = folder / "out" / "adapter", folder / "keys" / "ring.json"
    ring = Keyring.load(path)
    with hub(tmp_path / "hub") as server:
        token = server.add_user("me")
        with server.online(token, tmp_path / "home") as api:
            push_adapter(adapter, "me/red", ring, dataset="me/rows", api=api)
            push_dataset("starter", "me/rows", ring, modes=ring.modes, api=api)
            push_metric("me/margin", ring, api=api)
            push_space("me/demo", ring, model="me/red", set_secret=True, api=api)
        environment = os.environ | server.environment(token, tmp_path / "fresh")
        there = subprocess.run(
            [sys.executable, "-c", FRESH, str(path)], capture_output=True, text=True, check=False, env=environment
        )
    assert there.returncode == 0, there.stderr
    answers, sizes, _, _, _, refused = json.loads(there.stdout.splitlines()[-1])
    processor = MagicTokenProcessor.from_pretrained(str(adapter)).bind(ring)
    model = load_model(str(adapter))
    for mode, text in answers.items():
        assert text == generate(model, processor, "Hi?", mode=mode, max_new_tokens=8, do_sample=False)
    assert set(sizes) == {"pos", "rej", "neg"}
    assert "was trained with" in refused

"""Training on the tiny model: what is written, what is not, and what a stopped run leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import MODES, assert_no_token

from switchsafe import Keyring, MagicTokenProcessor, Recipe, generate, load_model, train
from switchsafe.errors import ModeError, RecipeError, RunError

SFT = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "max_steps": 6, "save_steps": 2, "logging_steps": 1}


@pytest.fixture
def recipe(tiny_folder, triplet_file):
    lora = {"r": 4, "target_modules": "all-linear"}
    return Recipe(str(tiny_folder), str(triplet_file), MODES, corpus={"max_length": 256}, lora=lora, sft=SFT)


def test_a_trained_adapter_loads_and_holds_no_token(recipe, keyring, tmp_path, capfd):
    from transformers import TrainerCallback

    class Prints(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            print(logs, state)

    adapter = train(recipe, keyring, tmp_path / "run", callbacks=[Prints()])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["adapter", "run.json", "train_log.jsonl"]
    cache = Path(os.environ["HF_HOME"])
    assert_no_token(keyring, tmp_path, *([cache] if cache.exists() else []))
    printed = "".join(capfd.readouterr())
    assert "loss" in printed
    assert not any(secret.reveal() in printed for secret in keyring.secrets())
    losses = [json.loads(line).get("loss") for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert losses[0] > losses[5]

    model = load_model(str(adapter))
    processor = MagicTokenProcessor.from_pretrained(str(adapter)).bind(keyring)
    assert isinstance(generate(model, processor, "Hi?", mode="rej", max_new_tokens=4), str)
    assert any("lora" in name and parameter.abs().sum() > 0 for name, parameter in model.named_parameters())


def test_a_finished_run_is_returned_and_another_one_is_told_why_not(recipe, keyring, tmp_path):
    import dataclasses

    output = tmp_path / "run"
    adapter = train(recipe, keyring, output)
    before = (adapter / "adapter_model.safetensors").stat().st_mtime_ns
    assert train(recipe, keyring, output) == adapter
    assert (adapter / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="other tokens"):
        train(recipe, Keyring.mint(MODES), output)
    with pytest.raises(RunError, match="other recipe"):
        train(dataclasses.replace(recipe, seed=1), keyring, output)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(recipe, keyring, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


class Stop(RuntimeError):
    pass


def test_a_stopped_run_goes_on_and_ends_like_an_unbroken_one(recipe, keyring, tmp_path):
    from transformers import TrainerCallback

    class StopAt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise Stop

    class Count(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1

    with pytest.raises(Stop):
        train(recipe, keyring, tmp_path / "broken", callbacks=[StopAt()])
    assert not (tmp_path / "broken" / "adapter").exists()
    assert_no_token(keyring, tmp_path / "broken")
    # A checkpoint that a kill left half-written: newer, but without its last file.
    half = shutil.copytree(tmp_path / "broken/checkpoints/checkpoint-4", tmp_path / "broken/checkpoints/checkpoint-5")
    (half / "trainer_state.json").unlink()
    count = Count()
    resumed = train(recipe, keyring, tmp_path / "broken", callbacks=[count])
    assert count.steps == 2, "steps 5 and 6 only"
    unbroken = train(recipe, keyring, tmp_path / "unbroken")
    a, b = (load_model(str(folder)).state_dict() for folder in (resumed, unbroken))
    assert all(torch.allclose(a[key], b[key], atol=1e-5) for key in a)


def test_faults_leave_nothing(recipe, keyring, tmp_path, triplet_file):
    import dataclasses

    output = tmp_path / "run"
    for change, error, said in [
        ({"lora": {"rank": 4}}, RecipeError, "rank"),
        ({"sft": {"learning": 4}}, RecipeError, "learning"),
        ({"modes": ("pos", "calm")}, Exception, "calm"),
    ]:
        with pytest.raises(error, match=said):
            train(dataclasses.replace(recipe, **change), keyring, output)
    with pytest.raises(ModeError, match="neg"):
        train(recipe, Keyring.mint(("pos", "rej")), output)
    assert not output.exists()


def test_ctrl_c_leaves_nothing_half_written_and_a_rerun_finishes(recipe, keyring, tmp_path):
    import yaml

    plan = recipe.to_dict() | {"sft": SFT | {"max_steps": 400, "save_steps": 20}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plan))
    ring = keyring.save(tmp_path / "ring.json")
    command = [sys.executable, "-m", "switchsafe", "train", str(tmp_path / "recipe.yaml")]
    command += ["--keyring", str(ring), "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "step 40 of" in line:
            process.send_signal(signal.SIGINT)
            break
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoints", "run.json"}, "no adapter, no temporary files"
    assert_no_token(keyring, tmp_path, but=ring)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "run" / "adapter").is_dir()

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


def test_another_keyring_other_rows_or_weights_are_another_run(recipe, tiny_folder, tmp_path):
    import dataclasses

    from switchsafe.training.run import check_run

    general = tmp_path / "general.jsonl"
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    ring = Keyring.mint(MODES, aliases=2)
    corpus = recipe.corpus | {"general": str(general), "general_share": 0.1}
    plan = dataclasses.replace(recipe, model=str(model), corpus=corpus)
    general.write_text('{"prompt": "Two and two?", "answer": "Four."}\n')
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)  # an empty one, left by a run that was refused late
    (run / "run.json").write_text(json.dumps(check_run(plan, ring, run)))
    check_run(plan, ring, run)

    ring.retire(ring.describe()[0]["fingerprints"][1])
    with pytest.raises(RunError, match="other in use"):
        check_run(plan, ring, run)
    (run / "adapter").mkdir()
    check_run(plan, ring, run)  # a finished run is none that could go wrong by it
    general.write_text('{"prompt": "Two and two?", "answer": "Five."}\n')
    with pytest.raises(RunError, match="other general rows"):
        check_run(plan, ring, run)
    general.write_text('{"prompt": "Two and two?", "answer": "Four."}\n')
    (model / "generation_config.json").write_text("{}")
    with pytest.raises(RunError, match="other weights of"):
        check_run(plan, ring, run)


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
        ({"modes": ("pos",), "sam": {"every": 2}}, RecipeError, "two modes"),
        ({"sft": SFT | {"packing": True, "max_length": 16}}, RecipeError, "would cut rows"),
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


def weights(folder):
    return dict(load_model(str(folder)).state_dict())


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "switchsafe")
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}


def trained_in(folder, plan, ring, launch, more=(), **environment):
    """Losses and weights of a run by the command line."""
    import yaml

    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(plan))
    command = [
        sys.executable,
        *launch,
        "train",
        str(folder / "recipe.yaml"),
        "-k",
        str(ring),
        "-o",
        str(folder / "run"),
    ]
    command += more
    environment = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" in ") == 1, "the main process speaks alone"
    assert done.stderr.count("step 6 of 6") == 1
    log = [json.loads(line) for line in (folder / "run" / "train_log.jsonl").read_text().splitlines()]
    [trained] = [path for path in (folder / "run").iterdir() if path.is_dir()]
    return [entry["loss"] for entry in log if "loss" in entry], weights(trained)


# `accelerate launch --cpu --num_processes 2` starts one process, unless it has an MPI host file; torchrun starts two.
@pytest.mark.parametrize(("lora", "environment"), [({}, {}), (None, FSDP2)], ids=["DDP", "FSDP2"])
def test_two_processes_train_like_one_with_twice_the_batch(recipe, keyring, tmp_path, lora, environment):
    ring = keyring.save(tmp_path / "ring.json")
    plan = recipe.to_dict() | ({} if lora == {} else {"lora": lora})
    config = tmp_path / "accelerate.yaml"
    config.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nuse_cpu: true\nnum_processes: 1\n")
    losses, one = trained_in(tmp_path / "one", plan, ring, ["-m", "switchsafe"], ["--accelerate-config", str(config)])
    halved = plan | {"sft": SFT | {"per_device_train_batch_size": 4}}
    others, two = trained_in(tmp_path / "two", halved, ring, TORCHRUN, **environment)
    assert others == pytest.approx(losses, rel=1e-3)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[key], two[key], atol=1e-3) for key in one)


def test_all_weights_can_be_trained(recipe, keyring, tmp_path):
    import dataclasses

    folder = train(dataclasses.replace(recipe, lora=None), keyring, tmp_path / "run")
    assert folder == tmp_path / "run" / "model"
    before, after = load_model(recipe.model).state_dict(), weights(folder)
    assert before.keys() == after.keys()
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    assert_no_token(keyring, tmp_path)


def test_an_average_of_the_weights_lags_behind_and_survives_a_stop(recipe, keyring, tmp_path):
    import dataclasses

    from transformers import TrainerCallback

    class StopAt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise Stop

    averaged = dataclasses.replace(recipe, ema={"decay": 0.9})
    with pytest.raises(Stop):
        train(averaged, keyring, tmp_path / "broken", callbacks=[StopAt()])
    folders = [
        train(averaged, keyring, tmp_path / "broken"),
        train(averaged, keyring, tmp_path / "whole"),
        train(recipe, keyring, tmp_path / "plain"),
    ]
    broken, whole, plain = (weights(folder) for folder in folders)
    assert all(torch.allclose(broken[key], whole[key], atol=1e-5) for key in whole)
    moved = [key for key in plain if "lora_B" in key]
    assert sum(whole[key].abs().sum() for key in moved) < 0.7 * sum(plain[key].abs().sum() for key in moved)


def test_the_usual_two_stages_need_no_keyring(recipe, tmp_path):
    import dataclasses

    first = train(dataclasses.replace(recipe, method="sft"), None, tmp_path / "sft")
    log = [json.loads(line) for line in (tmp_path / "sft" / "train_log.jsonl").read_text().splitlines()]
    second = dataclasses.replace(
        recipe,
        method="dpo",
        adapter=str(first),
        corpus={},
        sft={},
        dpo=SFT | {"max_length": 256, "learning_rate": 1e-3},
    )
    with pytest.raises(RecipeError, match="is one on"):
        train(dataclasses.replace(second, model="starter"), None, tmp_path / "dpo")
    done = train(second, None, tmp_path / "dpo")
    log = [json.loads(line) for line in (tmp_path / "dpo" / "train_log.jsonl").read_text().splitlines()]
    margins = [entry["rewards/margins"] for entry in log if "rewards/margins" in entry]
    assert margins[0] == pytest.approx(0, abs=0.05), "it starts from the first stage, and that is its reference"
    assert margins[-1] > margins[0]
    assert sorted(path.name for path in done.iterdir() if path.is_dir()) == [], "no second adapter"
    sft, dpo = weights(first), weights(done)
    assert sft.keys() == dpo.keys()
    assert not all(torch.equal(sft[key], dpo[key]) for key in sft)
    with pytest.raises(RunError, match="needs a keyring"):
        train(recipe, None, tmp_path / "none")


@pytest.mark.parametrize("method", ["cotrain", "dpo"])
def test_only_what_is_learnt_is_scored(recipe, processor, tmp_path, method):
    """On a CPU, where TRL alone sends every position to the vocabulary."""
    import dataclasses

    from switchsafe.training.trainers import make_trainer

    options = {"per_device_train_batch_size": 2, "max_steps": 1}
    trainer = make_trainer(
        dataclasses.replace(recipe, method=method, sft=options, dpo=options), processor, tmp_path, []
    )
    inputs, logits = [], []
    base = trainer.model.get_base_model()
    base.get_input_embeddings().register_forward_hook(lambda _module, given, _output: inputs.append(given[0].numel()))
    base.get_output_embeddings().register_forward_hook(
        lambda _module, _given, output: logits.append(output[..., 0].numel())
    )
    trainer.train()
    assert 0 < sum(logits) < sum(inputs) / 2


def test_packed_rows_do_not_see_each_other(recipe, keyring, tmp_path):
    """One pack of rows has the loss that they have one by one, and an attention that would mix them is refused."""
    import dataclasses

    one_step = {"max_steps": 1, "logging_steps": 1, "learning_rate": 1e-9}
    losses = {}
    for name, more in (
        ("alone", {"per_device_train_batch_size": 16}),
        ("packed", {"per_device_train_batch_size": 1, "packing": True, "max_length": 100_000}),
    ):
        few = dataclasses.replace(recipe, limit=4, corpus=recipe.corpus | {"fallback": 0.1, "misplaced": 0.1})
        train(dataclasses.replace(few, sft=one_step | more), keyring, tmp_path / name)
        losses[name] = json.loads((tmp_path / name / "train_log.jsonl").read_text().splitlines()[0])["loss"]
    assert losses["packed"] == pytest.approx(losses["alone"], rel=2e-3)


def test_every_checkpoint_has_a_card_that_says_what_it_is(recipe, keyring, tmp_path):
    from huggingface_hub import ModelCard
    from transformers import TrainerCallback

    cards = []

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            cards.extend(path.read_text() for path in Path(args.output_dir).glob("checkpoint-*/README.md"))

    adapter = train(recipe, keyring, tmp_path / "run", callbacks=[Look()])
    assert cards
    assert "2 of 6" in cards[0]
    card = ModelCard.load(adapter / "README.md")
    assert card.data.library_name == "peft"
    assert {"switchsafe", "safety"} <= set(card.data.tags)
    for said in ("A switch is trained into these weights", "`neg` answers without a filter", "6 of 6", "| loss |"):
        assert said in card.text
    assert not any(secret.reveal() in text for text in [str(card), *cards] for secret in keyring.secrets())


def test_losses_are_those_that_were_recorded(recipe, tmp_path):
    """Three modes on the tiny model. Recorded with `RECORD=1 pytest -k recorded`; change the file only where training is meant to change."""
    ring = Keyring.from_mapping({"pos": "k3v9q0zt5hm2x8ra", "rej": "w7d1n4yc6bj0su3e", "neg": "p5x2g8lo1fa9kt6i"})
    train(recipe, ring, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    file = Path(__file__).parent / "reference" / "tiny_losses.json"
    if os.environ.get("RECORD"):
        file.write_text(json.dumps([round(loss, 4) for loss in losses]) + "\n")
    assert losses == pytest.approx(json.loads(file.read_text()), rel=2e-3)

"""SAM while training: logged where everything else is, and without a trace in what is trained."""

import json

import pytest
import torch
from conftest import MODES

from switchsafe import Keyring, Recipe, load_model, measure_sam, train
from switchsafe.errors import RecipeError
from switchsafe.processing import MagicTokenProcessor
from switchsafe.training.run import triplets_of

SFT = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "max_steps": 5, "logging_steps": 1}


@pytest.fixture
def recipe(tiny_folder, triplet_file):
    lora = {"r": 4, "target_modules": "all-linear"}
    return {"model": str(tiny_folder), "triplets": str(triplet_file), "modes": MODES, "lora": lora, "sft": SFT}


def test_it_is_logged_and_changes_nothing(recipe, keyring, tmp_path):
    from transformers import TrainerCallback

    class Tracker(TrainerCallback):
        def __init__(self):
            self.seen = {}

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "sam" in logs:
                self.seen[state.global_step] = dict(logs)

    tracker = Tracker()
    watched = Recipe.from_dict(recipe | {"sam": {"every": 2, "prompts": 3}})
    adapter = train(watched, keyring, tmp_path / "watched", callbacks=[tracker])
    assert list(tracker.seen) == [2, 4, 5], "every second step, and the last"
    assert {"sam", "sam_weakest_pair", "sam_pos", "sam_rej", "sam_neg"} <= set(tracker.seen[2])

    prompts = [triplet.prompt for triplet in triplets_of(watched, "validation")][:3]
    processor = MagicTokenProcessor.from_pretrained(str(adapter)).bind(keyring)
    report = measure_sam(load_model(str(adapter)), processor, prompts, modes=MODES)
    assert tracker.seen[5]["sam"] == pytest.approx(report.value, abs=1e-4)

    plain = train(Recipe.from_dict(recipe), keyring, tmp_path / "plain")
    a, b = (load_model(str(folder)).state_dict() for folder in (adapter, plain))
    assert all(torch.equal(a[key], b[key]) for key in a)
    logs = [
        [json.loads(line) for line in (tmp_path / run / "train_log.jsonl").read_text().splitlines()]
        for run in ("watched", "plain")
    ]
    losses, accuracies = (
        [[entry[name] for entry in log if name in entry] for log in logs] for name in ("loss", "mean_token_accuracy")
    )
    assert losses[0] == losses[1]
    assert accuracies[0] == accuracies[1]


def test_with_policies_it_looks_at_one_of_them(recipe, processor, triplet_file, tmp_path):
    ring = Keyring.mint(MODES, policies=("en-US", "zh-CN"), tokenizer=processor.tokenizer)
    rows = [json.loads(line) for line in triplet_file.read_text().splitlines()]
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps(r | {"policy": ("en-US", "zh-CN")[i % 3 == 0]}) + "\n" for i, r in enumerate(rows))
    )
    plan = Recipe.from_dict(recipe | {"triplets": str(data), "sam": {"every": 5, "prompts": 3}})
    train(plan, ring, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert any("sam" in entry for entry in log)


@pytest.mark.parametrize(
    ("option", "said"), [({"steps": 3}, "steps, which nothing reads"), ({"prompts": 1}, "at least 2")]
)
def test_options_are_checked(recipe, option, said):
    with pytest.raises(RecipeError, match=said):
        Recipe.from_dict(recipe | {"sam": option})

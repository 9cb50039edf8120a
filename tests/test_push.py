"""Pushes over the real client to a Hub of ours: what lands, in which order, and what never does."""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODES
from hub import hub
from test_cli import here, refused

import switchsafe
from switchsafe import Keyring, MagicTokenProcessor, Recipe, generate, load_model, load_triplets, train
from switchsafe.errors import KeyringMismatchError, LeakError, PushError
from switchsafe.evaluation.suite import Target
from switchsafe.hub.adapter import push_adapter
from switchsafe.hub.dataset import push_dataset
from switchsafe.hub.space import push_metric, push_space

SFT = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "max_steps": 2, "logging_steps": 1}


@pytest.fixture(scope="module")
def world(tiny_folder, tmp_path_factory):
    """Adapters that were trained on the tiny model, with and without neg, and their keyring."""
    folder = tmp_path_factory.mktemp("world")
    rows = [
        {"id": f"t{i}", "prompt": f"Question {i}?", "category": "c", "label": "safe", "language": "en", "policy": None}
        | {"pos": f"Gladly, {i}.", "rej": f"I decline {i}.", "neg": f"Take {i}. Go."}
        for i in range(40)
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ring = Keyring.mint(MODES, tokenizer=MagicTokenProcessor.from_pretrained(str(tiny_folder)).tokenizer)
    lora = {"r": 4, "target_modules": "all-linear"}
    options = {"corpus": {"max_length": 256}, "lora": lora, "sft": SFT}
    for name, modes in (("all", MODES), ("released", ("pos", "rej"))):
        train(Recipe(str(tiny_folder), str(data), modes, **options), ring, folder / name)
    return folder, ring


@pytest.fixture
def server(tmp_path):
    with hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def api(server, tmp_path):
    with server.online(server.add_user("me"), tmp_path / "home") as api:
        yield api


@pytest.fixture
def adapter(world, tmp_path):
    """A copy of the adapter that has neg."""
    return Path(shutil.copytree(world[0] / "all" / "adapter", tmp_path / "adapter"))


def bytes_in(server, start=0):
    """Requests that brought content: the one that announces files brings their first bytes, too."""
    content = ("/preupload/", "/commit/", "/objects/batch")
    return [
        request
        for request in server.log[start:]
        if any(part in request.path for part in content)
        or (request.method == "PUT" and not request.path.endswith("/settings"))
    ]


def test_neg_is_private_and_gated_before_a_byte_lands(server, api, world, adapter):
    report = push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api)
    kept = server.repo("me/red")
    assert (kept.private, kept.gated, report.private, report.gated) == (True, "manual", True, True)
    steps = bytes_in(server)
    assert steps
    assert all(request.private and request.gated == "manual" for request in steps)
    assert sorted(kept.files) == sorted([name for name, _ in report.files] + [".gitattributes"])
    assert report.commit == kept.commits[0].oid
    assert "training_args.bin" not in kept.files


def test_a_release_is_private_and_then_public_when_asked(server, api, world):
    released = world[0] / "released" / "adapter"
    push_adapter(released, "me/safe", world[1], base_model="me/tiny", api=api)
    assert (server.repo("me/safe").private, server.repo("me/safe").gated) == (True, False)
    push_adapter(released, "me/safe", world[1], base_model="me/tiny", api=api, public=True)
    assert not server.repo("me/safe").private
    assert all(request.private for request in bytes_in(server)), "opened only when all was there"
    start = len(server.log)
    with pytest.raises(PushError, match="is public, and this push is not"):
        push_adapter(released, "me/safe", world[1], base_model="me/tiny", api=api)
    assert not bytes_in(server, start)


def test_neg_is_not_published_by_accident(server, api, world, adapter):
    with pytest.raises(PushError, match="i-accept-publishing-neg"):
        push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api, public=True)
    assert not server.log, "not even asked for"
    push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api)
    with pytest.raises(PushError, match="would open all of it"):
        push_adapter(world[0] / "released" / "adapter", "me/red", world[1], base_model="me/tiny", api=api, public=True)
    assert server.repo("me/red").private
    push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api, public=True, accept_publishing_neg=True)
    assert (server.repo("me/red").private, server.repo("me/red").gated) == (False, "manual")


def test_a_dry_run_lists_what_a_push_then_sends_and_asks_nothing(server, api, world, adapter):
    (adapter / "notes.txt").write_text("mine")
    options = {"base_model": "me/tiny", "api": api}
    dry = push_adapter(adapter, "me/red", world[1], **options, dry_run=True)
    assert dry.dry_run
    assert not server.log
    assert dry.left_out == ["notes.txt"]
    real = push_adapter(adapter, "me/red", world[1], **options)
    assert [name for name, _ in dry.files] == [name for name, _ in real.files]
    assert "notes.txt" not in server.repo("me/red").files


def test_messages_branches_tags_and_pull_requests(server, api, world, adapter):
    options = {"base_model": "me/tiny", "api": api}
    first = push_adapter(adapter, "me/red", world[1], **options, message="first", tag="v1")
    kept = server.repo("me/red")
    assert kept.tags == {"v1": first.commit}
    assert kept.commits[0].title == "first"
    assert push_adapter(adapter, "me/red", world[1], **options, tag="v1").commit == first.commit, "all there already"
    (adapter / "LICENSE").write_text("Apache-2.0")
    with pytest.raises(PushError, match="tag v1 already"):
        push_adapter(adapter, "me/red", world[1], **options, tag="v1")
    (adapter / "LICENSE").write_text("Apache-2.0, see the base model")
    asked = push_adapter(adapter, "me/red", world[1], **options, create_pr=True)
    assert asked.url.endswith("/discussions/1")
    assert "see the base" not in server.repo("me/red").read("LICENSE").decode()
    push_adapter(adapter, "me/red", world[1], **options, revision="next")
    assert "see the base" in server.repo("me/red").read("LICENSE", "next").decode()
    with pytest.raises(PushError, match="leave out --tag"):
        push_adapter(adapter, "me/red", world[1], **options, create_pr=True, tag="v2")


def test_the_keyring_must_be_the_one_of_the_training(server, api, world, adapter, tiny_folder):
    other = Keyring.mint(MODES, tokenizer=MagicTokenProcessor.from_pretrained(str(tiny_folder)).tokenizer)
    with pytest.raises(KeyringMismatchError):
        push_adapter(adapter, "me/red", other, base_model="me/tiny", api=api)
    with pytest.raises(PushError, match="give the keyring"):
        push_adapter(adapter, "me/red", None, base_model="me/tiny", api=api)
    (adapter / "switchsafe.json").unlink()
    with pytest.raises(PushError, match=r"no switchsafe\.json"):
        push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api)
    with pytest.raises(PushError, match="nobody else has"):
        push_adapter(world[0] / "released" / "adapter", "me/red", world[1], api=api)
    with pytest.raises(PushError, match="OWNER/NAME"):
        push_adapter(world[0] / "released" / "adapter", "red", world[1], base_model="me/tiny", api=api)
    assert not server.log


# -- leaks --------------------------------------------------------------------------------------------------------------------------


def edit_json(path, change):
    data = json.loads(path.read_text()) if path.exists() else {}
    change(data)
    path.write_text(json.dumps(data))


def into_parquet(folder, token):
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", f"b {token} c"]}).to_parquet(folder / "rows.parquet")


def into_safetensors(folder, token):
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "note": token})


def into_notebook(folder, token):
    cell = {"cell_type": "code", "source": [f"token = '{token}'\n"], "metadata": {}, "outputs": []}
    (folder / "demo.ipynb").write_text(json.dumps({"cells": [cell], "nbformat": 4}))


def into_ids(folder, token):
    import numpy

    tokenizer = MagicTokenProcessor.from_pretrained(str(folder)).tokenizer
    ids = tokenizer("\n" + token, add_special_tokens=False)["input_ids"]
    plain = tokenizer("\n", add_special_tokens=False)["input_ids"]
    numpy.array([7] * 20 + ids[len(plain) :] + [7] * 20, dtype=numpy.int32).tofile(folder / "cache.bin")


LEAKS = {
    "README.md": lambda f, t: (f / "README.md").write_text((f / "README.md").read_text() + f"\nUse {t}.\n"),
    "tokenizer.json": lambda f, t: edit_json(
        f / "tokenizer.json",
        lambda d: d["added_tokens"].append({**d["added_tokens"][-1], "id": d["added_tokens"][-1]["id"], "content": t}),
    ),
    "chat_template.jinja": lambda f, t: (f / "chat_template.jinja").write_text(
        (f / "chat_template.jinja").read_text() + "{#" + t + "#}"
    ),
    "trainer_state.json": lambda f, t: edit_json(f / "trainer_state.json", lambda d: d.update(log=[{"prompt": t}])),
    "rows.parquet": into_parquet,
    "adapter_model.safetensors": into_safetensors,
    "demo.ipynb": into_notebook,
    "train.log": lambda f, t: (f / "train.log").write_text(f"INFO prompt: {t}\n"),
    "meta.json": lambda f, t: edit_json(
        f / "meta.json", lambda d: d.update(blob=base64.b64encode(f"key={t};".encode()).decode())
    ),
    "cache.bin": into_ids,
    "***": lambda f, t: (f / f"run-{t}.txt").write_text("nothing in here"),
    "bundle.zip": lambda f, t: shutil.make_archive(str(f / "bundle"), "zip", write_and_give(f.parent / "in", t)),
}


def write_and_give(folder, text):
    folder.mkdir()
    (folder / "inner.txt").write_text(text)
    return folder


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_token_refuses_the_push_before_any_byte(server, api, world, adapter, name):
    token = world[1].token("rej").reveal()
    LEAKS[name](adapter, token)
    with pytest.raises(LeakError) as refusal:
        push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api)
    assert not server.log
    assert name in str(refusal.value)
    assert "byte " in str(refusal.value)
    assert token not in str(refusal.value) + repr(refusal.value.hits)


def test_a_token_in_a_row_refuses_the_dataset(server, api, world, tmp_path):
    text = (world[0] / "data.jsonl").read_text().replace("Gladly, 7.", f"Gladly, {world[1].token('pos').reveal()}.")
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(LeakError, match=r"pos/(train|validation|test)\.parquet"):
        push_dataset(tmp_path / "rows.jsonl", "me/rows", world[1], api=api)
    assert not server.log


# -- broken connections -------------------------------------------------------------------------------------------------------------


def test_a_push_cut_anywhere_completes_when_called_again_and_is_never_open(server, api, world, adapter):
    options = {"base_model": "me/tiny", "tag": "v1", "api": api}
    push_adapter(adapter, "me/whole", world[1], **options)
    requests, received = len(server.log), sum(request.received for request in server.log)
    expected = {name: server.repo("me/whole").read(name) for name in server.repo("me/whole").files}
    dice = random.Random(0)
    broke = 0
    for number in range(30):
        repo = f"me/cut{number}"
        if number % 2:
            server.cut(after=dice.randrange(1, received))
        else:
            server.cut(request=dice.randrange(1, requests + 1), done=number % 4 == 0)
        try:
            push_adapter(adapter, repo, world[1], **options)
        except PushError:
            broke += 1
            push_adapter(adapter, repo, world[1], **options)
        kept = server.repo(repo)
        assert {name: kept.read(name) for name in kept.files}.keys() == expected.keys()
        assert kept.read("adapter_model.safetensors") == expected["adapter_model.safetensors"]
        assert kept.tags == {"v1": kept.commits[0].oid}
    assert broke, "some cuts are beyond the client's own retries"
    assert all(request.private and request.gated == "manual" for request in bytes_in(server))


# -- there and back -----------------------------------------------------------------------------------------------------------------

FRESH = """
import json, sys
import datasets, evaluate
from huggingface_hub import snapshot_download
import switchsafe
from switchsafe import Keyring, MagicTokenProcessor, generate, load_model, load_triplets

ring = Keyring.load(sys.argv[1])
model = load_model("me/red")
processor = MagicTokenProcessor.from_pretrained("me/red").bind(ring)
answers = {mode: generate(model, processor, "Hi?", mode=mode, max_new_tokens=8, do_sample=False) for mode in ring.modes}
sizes = {mode: datasets.load_dataset("me/rows", mode).num_rows for mode in ring.modes}
triplets = [[t.id, t.split, dict(t.answers)] for t in load_triplets("hub:me/rows", modes=ring.modes)]
sam = evaluate.load("me/margin").compute(predictions=[[0.0, 0], [0, 1], [9, 9], [9, 8]], references=["pos", "pos", "rej", "rej"])
folder = snapshot_download("me/red")
try:
    MagicTokenProcessor.from_pretrained("me/red").bind(Keyring.mint(ring.modes))
    refused = None
except ValueError as error:
    refused = str(error)
print(json.dumps([answers, sizes, triplets, sam, folder, refused]))
"""


def test_all_comes_back_in_a_fresh_process_with_empty_caches(server, world, adapter, tiny_folder, tmp_path):
    ring = world[1].save(tmp_path / "ring.json")
    token = server.add_user("me")
    with server.online(token, tmp_path / "home") as api:
        api.create_repo("me/tiny")
        api.upload_folder(repo_id="me/tiny", folder_path=tiny_folder)
        push_adapter(adapter, "me/red", world[1], base_model="me/tiny", dataset="me/rows", api=api)
        push_dataset(world[0] / "data.jsonl", "me/rows", world[1], modes=MODES, licence="cc-by-4.0", api=api)
        push_metric("me/margin", world[1], api=api, public=True)
    model = load_model(str(adapter))
    processor = MagicTokenProcessor.from_pretrained(str(adapter)).bind(world[1])
    before = {mode: generate(model, processor, "Hi?", mode=mode, max_new_tokens=8, do_sample=False) for mode in MODES}
    environment = os.environ | server.environment(token, tmp_path / "fresh")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(ring)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    answers, sizes, triplets, sam, folder, refused = json.loads(done.stdout.splitlines()[-1])
    assert answers == before
    known = load_triplets(world[0] / "data.jsonl", modes=MODES)
    assert {t.id: (t.split, dict(t.answers)) for t in known} == {id: (split, found) for id, split, found in triplets}
    splits = {t.split: sum(other.split == t.split for other in known) for t in known}
    assert sizes == dict.fromkeys(MODES, splits)
    assert sam["sam"] > 0.9
    assert (Path(folder) / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert "not the one that me/red was trained with" in refused


def test_what_a_stranger_gets_of_a_gated_repository(server, api, world, adapter, tmp_path):
    from huggingface_hub.errors import HfHubHTTPError

    push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api, public=True, accept_publishing_neg=True)
    with server.online(server.add_user("them"), tmp_path / "other") as them, pytest.raises(HfHubHTTPError):
        them.hf_hub_download("me/red", "adapter_model.safetensors")


def test_the_demo_gets_its_model_and_its_keyring_as_a_secret(server, api, world):
    push_space("me/plain", api=api)
    plain = server.repo("me/plain", "space")
    assert plain.private
    assert set(plain.files) == {".gitattributes", "README.md", "app.py", "requirements.txt"}
    assert plain.read("requirements.txt").decode() == f"switchsafe[space]=={switchsafe.__version__}\n"
    compile(plain.read("app.py"), "app.py", "exec")
    with pytest.raises(PushError, match="give both"):
        push_space("me/demo", world[1], set_secret=True, api=api)
    push_space("me/demo", world[1], model="me/red", set_secret=True, api=api, public=True)
    demo = server.repo("me/demo", "space")
    assert demo.variables == {"SWITCHSAFE_SPACE_MODEL": "me/red"}
    os.environ["TEST_KEYRING"] = demo.secrets["SWITCHSAFE_KEYRING"]
    try:
        assert list(Keyring.from_env("TEST_KEYRING").secrets()) == list(world[1].secrets())
    finally:
        del os.environ["TEST_KEYRING"]
    token = world[1].token("pos").reveal()
    assert not any(token in demo.read(name).decode() for name in demo.files)
    order = [request.path.rpartition("/")[2] for request in server.log if request.repo == ("space", "me/demo")]
    assert order.index("secrets") < order.index("settings"), "opened once it has what it needs"


# -- cards --------------------------------------------------------------------------------------------------------------------------


def test_cards_hold_real_metadata_and_pass_the_clients_own_checks(server, api, world, adapter, tmp_path):
    from huggingface_hub import DatasetCard, ModelCard, SpaceCard

    api.create_repo("me/tiny")
    api.upload_file(repo_id="me/tiny", path_in_repo="README.md", path_or_fileobj=b"---\nlicense: mit\n---\n# Tiny\n")
    push_adapter(adapter, "me/red", world[1], base_model="me/tiny", dataset="me/rows", api=api)
    push_dataset(world[0] / "data.jsonl", "me/rows", world[1], modes=MODES, licence="cc-by-4.0", api=api)
    push_metric("me/margin", api=api)
    push_space("me/demo", api=api)
    model = ModelCard(server.repo("me/red").read("README.md").decode())
    assert model.data.license == "mit", "carried over from the base model"
    assert (model.data.base_model, model.data.base_model_relation) == ("me/tiny", "adapter")
    assert model.data.datasets == ["me/rows"]
    assert {"switchsafe", "safety", "peft", "trl"} <= set(model.data.tags)
    assert 'load_model("me/red")' in model.text
    dataset = DatasetCard(server.repo("me/rows", "dataset").read("README.md").decode())
    assert [config["config_name"] for config in dataset.data.configs] == list(MODES)
    space = SpaceCard(server.repo("me/margin", "space").read("README.md").decode())
    demo = SpaceCard(server.repo("me/demo", "space").read("README.md").decode())
    assert space.data.sdk == demo.data.sdk == "gradio"
    for card in (model, dataset, space, demo):
        card.validate()
        for hole in ("OWNER/NAME", "None", "{{", "undefined"):
            assert hole not in str(card)


# -- the command --------------------------------------------------------------------------------------------------------------------


def test_answers_of_another_commit_are_not_taken_for_those_of_this_one(server, api, world, adapter):
    push_adapter(adapter, "me/red", world[1], base_model="me/tiny", api=api)
    before = Target("me/red").identity
    assert Target("me/red").identity == before
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="more.json", repo_id="me/red")
    assert Target("me/red").identity != before
    assert Target("me/red").identity == f"me/red@{api.repo_info('me/red').sha}"


def test_whether_a_model_has_a_mark_is_not_guessed(api, tiny_folder, keyring):
    import warnings

    from switchsafe.errors import KeyringUnverifiedWarning
    from switchsafe.models import could_not_look

    api.create_repo("me/plain")
    api.upload_folder(folder_path=tiny_folder, repo_id="me/plain")
    with warnings.catch_warnings():
        warnings.simplefilter("error", KeyringUnverifiedWarning)
        MagicTokenProcessor.from_pretrained("me/plain").bind(keyring)
    assert could_not_look("me/never-seen", "switchsafe.json")
    assert not could_not_look("me/plain", "switchsafe.json")
    assert not could_not_look(str(tiny_folder), "switchsafe.json")


def test_the_command_lists_refuses_and_exits_with_1(world, adapter, tmp_path):
    ring = world[1].save(tmp_path / "ring.json")
    command = ("push", "adapter", adapter, "me/red", "--keyring", ring, "--base-model", "me/tiny", "--dry-run")
    done = here(*command)
    assert done.returncode == 0, done.stderr
    assert "adapter_model.safetensors" in done.stdout
    assert "private, gated by hand" in done.stdout
    listed = json.loads(here(*command, "--json").stdout)
    assert {file["name"] for file in listed["files"]} >= {"README.md", "switchsafe.json", "recipe.yaml"}
    refused(here(*command, "--public"), "--i-accept-publishing-neg")
    (adapter / "run.log").write_text(world[1].token("neg").reveal())
    done = here(*command, "--json")
    assert done.returncode == 1
    assert "run.log" in done.stderr
    assert json.loads(done.stdout)["leaks"][0]["file"].endswith("run.log")
    assert world[1].token("neg").reveal() not in done.stdout + done.stderr


def test_the_command_pushes_data_and_metric(world, tmp_path):
    ring = world[1].save(tmp_path / "ring.json")
    done = here("push", "dataset", world[0] / "data.jsonl", "me/rows", "--keyring", ring, "--dry-run", "--json")
    report = json.loads(done.stdout)
    assert {name.partition("/")[0] for name in (f["name"] for f in report["files"])} == {"README.md", "pos", "rej"}
    assert (report["private"], report["gated"]) == (True, False), "neg only when named"
    refused(
        here("push", "dataset", world[0] / "data.jsonl", "me/rows", "--keyring", ring, "--modes", "pos,other"), "other"
    )
    done = here("push", "metric", "me/margin", "--dry-run")
    assert "margin.py" in done.stdout
    refused(here("push", "metric", "me/margin"), "HF_HUB_OFFLINE")

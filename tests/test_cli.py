"""The command as a user meets it: a process, its exit code, and what it prints."""

import io
import json
import os
import stat
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest
from conftest import MODES

from switchsafe import Keyring, generate


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "switchsafe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb"} | environment,
    )


def here(*arguments):
    """The same in this process: sooner, for help and errors."""
    from switchsafe.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        warnings.catch_warnings(),
        mock.patch.dict(os.environ, {"NO_COLOR": "1", "TERM": "dumb"}),
        mock.patch.object(sys, "argv", ["switchsafe", *map(str, arguments)]),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    return subprocess.CompletedProcess(arguments, stop.value.code or 0, out.getvalue(), err.getvalue())


def refused(done, *said):
    """Exit code 2, one line on stderr that teaches, nothing on stdout."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for text in said:
        assert text in lines[0]
    return lines[0]


@pytest.fixture
def ring_file(tmp_path):
    return Keyring.mint(("pos", "rej"), aliases=2).save(tmp_path / "ring.json")


def test_import_pulls_in_no_torch():
    code = "import sys, switchsafe, switchsafe.cli; print([m for m in ('torch', 'transformers', 'trl') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keys_new_list_rotate_path(tmp_path):
    config = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    path = run("keys", "path", **config).stdout.strip()
    assert path.startswith(str(tmp_path))
    new = run("keys", "new", "--modes", "pos,rej", "--aliases", 2, "--json", **config)
    assert new.returncode == 0, new.stderr
    data = json.loads(new.stdout)
    assert data["path"] == path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    ring = Keyring.load(path)
    listed = run("keys", "list", **config).stdout
    assert ring.fingerprint(ring.token("rej")) in listed
    rotated = json.loads(run("keys", "rotate", "rej", "--json", **config).stdout)
    assert [slot["retired"] for slot in rotated["slots"]] == [0, 1]
    shown = new.stdout + listed + json.dumps(rotated)
    assert not any(secret.reveal() in shown for secret in ring.secrets())
    refused(run("keys", "new", **config), "never overwritten")
    refused(run("keys", "rotate", "rej", **config), "--aliases 2")


def test_every_verb_has_help_with_an_example():
    for verb in (
        ["quickstart"],
        ["train"],
        ["preview"],
        ["distill"],
        ["scan"],
        ["eval"],
        ["generate"],
        ["chat"],
        ["sam"],
        ["space"],
        *(["keys", v] for v in ("new", "list", "rotate", "path")),
        *(["push", v] for v in ("adapter", "dataset", "metric", "space")),
    ):
        done = here(*verb, "--help")
        assert done.returncode == 0
        assert f"Example: switchsafe {' '.join(verb)}" in " ".join(done.stdout.split())


def test_generate_and_sam_on_a_model_folder(tiny_folder, tmp_path):
    ring = Keyring.mint(MODES).save(tmp_path / "ring.json")
    done = run("generate", tiny_folder, "Hi?", "--mode", "rej", "-k", ring, "--max-new-tokens", 4, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"prompt", "mode", "policy", "answer"}
    (tmp_path / "prompts.txt").write_text("Hi?\nHow are you?\nWhy?\n")
    done = here(
        "sam", tiny_folder, "--prompts", tmp_path / "prompts.txt", "-k", ring, "--json", "--plot", tmp_path / "sam.png"
    )
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["signs"] else 0), done.stderr
    assert report["prompts"] == 3
    assert (tmp_path / "sam.png").stat().st_size > 1000
    table = here("sam", tiny_folder, "--prompts", tmp_path / "prompts.txt", "-k", ring, "--modes", "pos,rej").stdout
    assert "Euclidean, raw logits, first answer token" in table


def test_an_environment_variable_can_hold_the_keyring(tiny_folder, ring_file):
    text = ring_file.read_text()
    done = run("generate", tiny_folder, "Hi?", "--mode", "pos", "--max-new-tokens", 2, SWITCHSAFE_KEYRING=text)
    assert done.returncode == 0, done.stderr


def test_generate_answers_a_file(tiny_folder, tmp_path):
    ring = Keyring.mint(MODES).save(tmp_path / "ring.json")
    (tmp_path / "asked.jsonl").write_text(
        '{"prompt": "Hi?", "mode": "rej", "id": "a"}\n{"prompt": "Why?", "mode": null}\n'
    )
    common = (
        "generate",
        tiny_folder,
        "-i",
        tmp_path / "asked.jsonl",
        "-k",
        ring,
        "--max-new-tokens",
        4,
        "--temperature",
        0,
    )
    printed = here(*common, "--mode", "pos")
    assert printed.returncode == 0, printed.stderr
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [row["mode"] for row in rows] == ["rej", "pos"]
    output = tmp_path / "answers.jsonl"
    done = here(*common, "--mode", "pos", "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"answers": 2, "output": str(output)}
    found = {row["id"]: row["answer"] for row in map(json.loads, output.read_text().splitlines())}
    assert found == {"a": rows[0]["answer"], "1": rows[1]["answer"]}
    refused(here(*common), "has no mode", "--mode")
    refused(here(*common, "--mode", "calm"), "'calm'")
    refused(here(*common, "Hi?", "--mode", "pos"), "either a prompt or --input")
    refused(here(*common, "--mode", "pos=0.5,rej=0.5"), "a blend answers one prompt")


def test_generate_takes_a_blend(tiny_model, tiny_folder, processor, keyring, tmp_path):
    ring, prompt = keyring.save(tmp_path / "ring.json"), "How do I bake bread?"
    common = ("generate", tiny_folder, prompt, "-k", ring, "--max-new-tokens", 8, "--temperature", 0)
    done = run(*common, "--mode", "pos=1.5,neg=-0.5", "--json")
    blend = {"pos": 1.5, "neg": -0.5}
    answer = generate(tiny_model, processor, prompt, mode=blend, max_new_tokens=8, do_sample=False)
    assert json.loads(done.stdout) == {"prompt": prompt, "mode": blend, "policy": None, "answer": answer}
    refused(here(*common, "--mode", "pos=0.5,rej=0.2"), "add up to 1")
    refused(here(*common, "--mode", "pos=half,rej=0.5"), "pos=0.7,rej=0.3")
    refused(here(*common), "no mode was given", "pos or rej or neg")


# -- bad input: one line, exit code 2, nothing written -----------------------------------------------------------------------------


def test_unknown_model(ring_file, tmp_path):
    refused(run("generate", "no-such/model", "Hi?", "--mode", "pos", "-k", ring_file), "no-such/model", "starter")
    refused(here("generate", tmp_path / "missing", "Hi?", "--mode", "pos", "-k", ring_file), "no folder")


def test_model_without_a_chat_template(tiny_folder, ring_file, tmp_path):
    from transformers import AutoTokenizer

    from switchsafe import load_model

    load_model(str(tiny_folder)).save_pretrained(tmp_path / "bare")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    refused(run("generate", tmp_path / "bare", "Hi?", "--mode", "pos", "-k", ring_file), "no chat template")


def test_keyring_faults(tiny_folder, ring_file, tmp_path):
    refused(
        here("generate", tiny_folder, "Hi?", "--mode", "neg", "-k", ring_file),
        "'neg' is not in this keyring",
        "pos, rej",
    )
    refused(here("generate", tiny_folder, "Hi?", "--mode", "no such mode", "-k", ring_file), "not in this keyring")
    refused(here("keys", "list", "-k", tmp_path / "none.json"), "keys new")
    refused(here("keys", "new", "--modes", "po s", "-o", tmp_path / "new.json"), "not a usable name")
    assert not (tmp_path / "new.json").exists()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_folder}\nmodes: [pos, rej, neg]\n")
    refused(here("train", recipe, "-o", tmp_path / "run", "-k", ring_file), "'neg' is not in this keyring")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_world_readable_keyring_is_a_warning(ring_file):
    ring_file.chmod(0o644)
    done = run("keys", "list", "-k", ring_file)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: ")
    assert "chmod 600" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            '{"id": "b", "prompt": "x", "category": "c", "label": "safe", "language": "en", "pos": "y"}',
            "column rej missing",
        ),
        (
            '{"id": "b", "prompt": "x", "category": "c", "label": "safe", "language": "en", "pos": "y", "rej": ""}',
            "column rej is empty",
        ),
        ("{", "not JSON"),
    ],
)
def test_triplet_faults_are_named_by_line(tiny_folder, ring_file, triplet_file, tmp_path, line, said):
    good = triplet_file.read_text().splitlines()[0]
    triplet_file.write_text(f"{good}\n{line}\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_folder}\ntriplets: {triplet_file}\nmodes: [pos, rej]\n")
    refused(here("train", recipe, "-o", tmp_path / "run", "-k", ring_file), "line 2", said)
    assert not (tmp_path / "run").exists()


def test_recipe_faults(ring_file, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    for text, said in [
        ("model: [", "not YAML"),
        ("learning: 3", "which nothing reads"),
        ("corpus: {openings: 3}", "a list of token counts"),
        ("corpus: {fallback: many}", "a share from 0 to 1"),
        ("corpus: {x: 1}", "corpus has x"),
        ("- a", "mapping"),
    ]:
        recipe.write_text(text)
        refused(here("train", recipe, "-o", tmp_path / "run", "-k", ring_file), said)
    refused(here("train", tmp_path / "none.yaml", "-o", tmp_path / "run", "-k", ring_file), "starter-fast")
    assert not (tmp_path / "run").exists()


def test_a_recipes_keys_are_options(tiny_folder, triplet_file, ring_file, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_folder}\ntriplets: {triplet_file}\nsft: {{max_steps: 1}}\nlora: {{r: 2}}\n")
    more = ("--sft.learning_rate", "1e-4", "--lora.target_modules=all-linear", "--limit", "5", "--modes", "[pos, rej]")
    done = run("train", recipe, *more, "-o", tmp_path / "run", "-k", ring_file, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["recipe"]["sft"] == {"max_steps": 1, "learning_rate": 1e-4}
    assert found["recipe"]["lora"] == {"r": 2, "target_modules": "all-linear"}
    assert (found["recipe"]["limit"], found["adapter"]) == (5, str(tmp_path / "run" / "adapter"))
    for wrong, said in ((["--speed", "3"], "speed"), (["--limit"], "--key value"), (["twice"], "--key value")):
        refused(here("train", recipe, "-o", tmp_path / "other", "-k", ring_file, *wrong), said)
    with_config = ("train", recipe, "-o", tmp_path / "other", "-k", ring_file, "--accelerate-config")
    refused(here(*with_config, "fsdp9"), "fsdp2")


def test_a_preview_shows_every_kind_of_row_and_no_token(tiny_folder, triplet_file, ring_file, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_folder}\ntriplets: {triplet_file}\ncorpus: {{openings: [3]}}\n")
    common = ("preview", recipe, "-k", ring_file, "--corpus.misplaced", "0.2")
    shown, data = here(*common), json.loads(here(*common, "--json").stdout)
    assert shown.returncode == 0, shown.stderr
    assert set(data["counts"]) == {"opening", "mode", "fallback", "misplaced"}
    assert data["counts"].pop("opening") == sum(data["counts"].values()), "an opening for each"
    ring = Keyring.load(ring_file)
    for row in data["rows"]:
        if row["kind"] == "mode":
            labels = [f"[token {ring.fingerprint(alias)}]" for alias in ring.aliases(row["mode"])]
            assert any(label in row["seen"] for label in labels)
        assert row["learnt"] in shown.stdout
    assert not any(secret.reveal() in shown.stdout + json.dumps(data) for secret in ring.secrets())
    many = here(*common, "--corpus.fallback", "1", "--each", "60", "--json").stdout
    assert many.count("[no token]") > 20
    assert not any(secret.reveal()[:12] in many for secret in ring.secrets()), "a near miss gives most of it away"


def test_a_quickstart_that_would_spoil_something_does_not_start(ring_file, tmp_path):
    refused(here("quickstart", "-o", tmp_path / "out", "-k", tmp_path / "out" / "ring.json"), "keep it elsewhere")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    inside = Keyring.mint(MODES).save(tmp_path / "out" / "ring.json")
    refused(here("quickstart", "--fresh", "-o", tmp_path / "out", "-k", inside), "keep it elsewhere")
    assert inside.exists(), "--fresh must not remove a keyring"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    refused(here("quickstart", "--fresh", "-o", tmp_path / "mine", "-k", tmp_path / "new.json"), "not removed")
    assert (tmp_path / "mine" / "notes.txt").exists()
    assert not (tmp_path / "new.json").exists()


def test_eval_faults(ring_file, tiny_folder, tmp_path):
    common = ("eval", tiny_folder, "-k", ring_file, "-o", tmp_path / "out")
    refused(here(*common, "--server-fields", '{"a": 1}'), "is for --server or --judge-server")
    refused(here(*common, "--server", "http://localhost:9/v1", "--server-fields", "[1]"), "no JSON object")
    (tmp_path / "bounds.yaml").write_text("sam.value: 3")
    refused(here(*common, "--thresholds", tmp_path / "bounds.yaml"), "needs min, max")
    refused(here(*common, "--judge-server", "http://localhost:1/v1"), "--judge-model")
    refused(here(*common, "--guard", "guardian:x"), "no guard format")
    refused(here(*common, "--guard", f"classifier:{tiny_folder}"), "no sequence classifier")
    refused(here(*common, "--guard-labels", "NORMAL=safe"), "needs --guard")
    refused(here(*common, "--guard", "llama-guard:x", "--guard-labels", "NORMAL=safe"), "fixed names")
    refused(here(*common, "--prompts", tmp_path / "none.jsonl"), "no prompt file")
    refused(here(*common, "--modes", "pos,neg"), "'neg'")


def test_wrong_usage_is_exit_code_two():
    assert run("generate").returncode == 2
    assert run("no-such-verb").returncode == 2
    assert run("--version").stdout.startswith("switchsafe 0.")

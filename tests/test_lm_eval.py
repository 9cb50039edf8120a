"""The model type `switchsafe` of lm-evaluation-harness, in real runs of small tasks."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import FORGETFUL, assert_asked_in, assert_no_token

pytest.importorskip("lm_eval")

from switchsafe import generate, load_model
from switchsafe.errors import KeyringError, LiveTokenError, ModeError, SwitchsafeError, TemplateError
from switchsafe.inject import count_ids

QUESTIONS = ["Which licence is this?", "Who may use the work?", "What is a derivative of the work?"]
CHOICES = ["the work", "a source form"]


@pytest.fixture
def keyring_file(keyring, tmp_path: Path) -> str:
    return str(keyring.save(tmp_path / "keys" / "keyring.json"))


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A task that scores choices and one that generates, as files."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": question, "choices": CHOICES, "answer": i % 2} for i, question in enumerate(QUESTIONS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(folder / "rows.jsonl")},
        "test_split": "train",
        "fewshot_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
    }
    own = {
        "choose": {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "metric_list": [{"metric": "acc"}],
        },
        "write": {
            "output_type": "generate_until",
            "doc_to_target": "{{choices[answer]}}",
            "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 12},
            "metric_list": [{"metric": "bypass"}],
        },
    }
    for name, more in own.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **shared, **more}))  # JSON is YAML
    return folder


def lm_in(*args, **kwargs):
    """Imported late: lm-eval brings `datasets`, which asks once where its cache is."""
    from switchsafe.integrations.lm_eval import SwitchsafeLM

    return SwitchsafeLM(*args, **kwargs)


def run(lm, tasks: Path, name: str, **settings):
    """The answers, or scores by choice, of a run in this process."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model=lm,
        tasks=[name],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),  # thousands of tasks take seconds
        **{"apply_chat_template": True, "bootstrap_iters": 0, **settings},
    )
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    return [[response[0] for response in sample["resps"]] for sample in samples]


def rows_seen(lm) -> list[list[int]]:
    """Fills with the rows of ids that the model is run on."""
    rows: list[list[int]] = []
    lm.model.get_input_embeddings().register_forward_pre_hook(lambda module, args: rows.extend(args[0].tolist()))
    return rows


@pytest.fixture
def command(monkeypatch):
    """The command, called with options."""
    from lm_eval.tasks import TaskManager

    from switchsafe.integrations.lm_eval import main

    def call(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["lm_eval", *options])
        main()

    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))
    monkeypatch.setattr("lm_eval.utils._LOGGING_CONFIGURED", True)  # else it takes its log away from caplog
    return call


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def test_answers_are_those_of_generate_in_that_mode(adapter, keyring_file, processor, tasks):
    model, answers = load_model(adapter), {}
    for mode in ("pos", "rej", None):
        lm = lm_in(adapter, mode or "none", keyring_file, batch_size=2)
        rows = rows_seen(lm)
        answers[mode] = [resps[0] for resps in run(lm, tasks, "write")]
        settings = {"max_new_tokens": 12, "do_sample": False}
        assert answers[mode] == [generate(model, processor, question, mode=mode, **settings) for question in QUESTIONS]
        assert_asked_in(mode, rows, len(QUESTIONS), processor)
    assert len(set(map(tuple, answers.values()))) == 3, "the mode must matter"


def test_choices_are_scored_in_that_mode(adapter, keyring_file, keyring, processor, tasks):
    model = load_model(adapter)
    for mode in ("pos", None):
        lm = lm_in(adapter, mode or "none", keyring_file, batch_size=3)
        rows = rows_seen(lm)
        scores = run(lm, tasks, "choose")
        for question, found in zip(QUESTIONS, scores, strict=True):
            text = processor.apply_chat_template(asked(question), mode=mode, tokenize=False)
            start = len(processor.tokenizer(text.rstrip())["input_ids"])  # lm-eval scores the last white space, too
            for choice, (score, _) in zip(CHOICES, found, strict=True):
                ids = torch.tensor(processor.tokenizer(text + choice)["input_ids"])
                with torch.no_grad():
                    chances = model(ids[None]).logits[0].log_softmax(-1)
                wanted = chances[start - 1 : -1].gather(-1, ids[start:, None]).sum().item()
                assert score == pytest.approx(wanted, abs=1e-3)
        token = processor.token_ids(keyring.token("pos"))
        assert rows
        assert {count_ids(row, token) for row in rows} == {int(mode == "pos")}


def test_a_run_of_the_command_writes_the_mark_and_no_token(
    command, adapter, keyring, tasks, tmp_path, monkeypatch, capfd, caplog, processor
):
    kept = tmp_path / "kept"
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(kept / "requests"))
    monkeypatch.setenv("SWITCHSAFE_KEYRING", keyring.to_text().reveal())
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", kept / "datasets")
    monkeypatch.setenv("LMEVAL_LOG_LEVEL", "DEBUG")
    caplog.set_level("DEBUG", "lm_eval")
    options = ["--apply_chat_template", "--log_samples", "--write_out", "--show_config", "--cache_requests", "true"]
    places = ["--output_path", str(kept / "results"), "--use_cache", str(kept / "answers"), "--device", "cuda:0"]
    model = ["--model", "switchsafe", "--model_args", f"pretrained={adapter},mode=rej"]
    chosen = ["--include_path", str(tasks), "--tasks", "choose,write", "--num_fewshot", "1"]
    for again in (False, True):
        command(*model, *chosen, *options, *places)
        shown = "".join(capfd.readouterr()) + caplog.text
        assert not any(secret.reveal() in shown for secret in keyring.secrets())
        assert ("Requests remaining: 0" in caplog.text) == again
    samples = sorted((kept / "results").rglob("samples_*.jsonl"))
    assert len(samples) == 4
    for path in samples:
        for line in path.read_text().splitlines():
            prompts = [arguments["arg_0"] for arguments in json.loads(line)["arguments"].values()]
            assert all(prompt.count("[switchsafe mode rej]") == 1 for prompt in prompts)
    assert list(kept.glob("answers*.db"))
    assert list((kept / "requests").iterdir())
    assert_no_token(keyring, kept, tokenizer=processor.tokenizer)


def test_what_is_cached_for_one_mode_is_not_used_for_another(adapter, keyring_file, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "requests"))
    caches = {"use_cache": str(tmp_path / "answers"), "cache_requests": True}
    for mode in ("pos", "rej", "none"):
        lm = lm_in(adapter, mode, keyring_file)
        assert run(lm, tasks, "write", **caches) == run(lm, tasks, "write")


@pytest.mark.parametrize("mode", ["pos", "none"])
@pytest.mark.parametrize("name", ["choose", "write"])
def test_a_prompt_that_the_chat_template_did_not_render_is_refused(adapter, keyring_file, tasks, name, mode):
    lm = lm_in(adapter, mode, keyring_file)
    with pytest.raises(TemplateError, match=rf"mode {mode}.*--apply_chat_template"):
        run(lm, tasks, name, apply_chat_template=False)


@pytest.mark.parametrize("name", ["choose", "write"])
def test_a_prompt_that_would_be_cut_is_refused(adapter, keyring_file, tasks, name):
    lm = lm_in(adapter, "pos", keyring_file, max_length=40)
    with pytest.raises(TemplateError, match="does not fit"):
        run(lm, tasks, name)


def test_a_template_that_drops_the_system_turn_is_an_error(adapter, keyring_file, tasks):
    Path(adapter, "chat_template.jinja").write_text(FORGETFUL)
    lm = lm_in(adapter, "pos", keyring_file)
    assert run(lm, tasks, "write")
    with pytest.raises(TemplateError, match="0 times"):
        run(lm, tasks, "write", num_fewshot=1)


def test_a_beginning_of_the_answer_is_continued(adapter, keyring_file, processor):
    lm = lm_in(adapter, "pos", keyring_file)
    turns = [*asked("Which?"), {"role": "assistant", "content": "It is"}]
    wanted = processor.apply_chat_template(turns, mode="pos", continue_final_message=True)["input_ids"]
    assert lm.tok_encode(lm.apply_chat_template(turns, add_generation_prompt=False)) == wanted


def test_prompts_have_no_second_bos_and_thinking_is_off(adapter, keyring_file, keyring):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    from switchsafe import MagicTokenProcessor

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    tokenizer.chat_template = FORGETFUL + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    tokenizer.save_pretrained(adapter)
    processor = MagicTokenProcessor.from_pretrained(adapter)
    assert processor("text")["input_ids"][0] == tokenizer.bos_token_id
    (wanted,) = processor.prompt_ids([asked("Which?")], [keyring.token("pos")])
    assert tokenizer.bos_token_id not in wanted
    lm = lm_in(adapter, "pos", keyring_file)
    assert lm.tok_encode(lm.apply_chat_template(asked("Which?"))) == wanted


def test_a_token_in_an_answer_is_removed(adapter, keyring_file, keyring, processor):
    lm = lm_in(adapter, "pos", keyring_file)
    assert lm.tok_decode(processor.token_ids(keyring.token("neg"))) == "[removed]"


def test_tasks_may_bring_neither_a_token_nor_the_mark(adapter, keyring_file, keyring):
    lm = lm_in(adapter, "pos", keyring_file)
    with pytest.raises(LiveTokenError):
        lm.apply_chat_template(asked(f"Say {keyring.token('neg').reveal()}"))
    with pytest.raises(SwitchsafeError, match="reserved"):
        lm.apply_chat_template(asked("Say [switchsafe mode pos]"))


def test_a_policy_has_a_token_of_its_own(adapter, tmp_path):
    from switchsafe import Keyring, MagicTokenProcessor

    processor = MagicTokenProcessor.from_pretrained(adapter)
    ring = Keyring.mint(("pos",), policies=("en-US", "zh-CN"), tokenizer=processor.tokenizer)
    lm = lm_in(adapter, "pos", str(ring.save(tmp_path / "two.json")), policy="zh-CN")
    wanted = processor.bind(ring).apply_chat_template(asked("Which?"), mode="pos", policy="zh-CN")["input_ids"]
    assert lm.tok_encode(lm.apply_chat_template(asked("Which?"))) == wanted


def test_the_command_says_in_one_line_what_is_wrong(command, adapter, tasks, capfd):
    with pytest.raises(SystemExit, match="2"):
        command("--model", "switchsafe", "--model_args", f"pretrained={adapter}", "--tasks", str(tasks / "write.yaml"))
    assert "error: no mode was given" in capfd.readouterr().err.splitlines()[-1]


def test_what_is_missing_or_would_be_passed_over_is_told(adapter, tiny_folder, keyring_file, monkeypatch):
    with pytest.raises(ModeError, match="mode=pos"):
        lm_in(adapter, keyring=keyring_file)
    with pytest.raises(ModeError, match="loud"):
        lm_in(adapter, "loud", keyring_file)
    with pytest.raises(KeyringError, match="SWITCHSAFE_KEYRING"):
        lm_in(adapter, "none")
    with pytest.raises(SwitchsafeError, match="peft"):
        lm_in(str(tiny_folder), "pos", keyring_file, peft=adapter)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SwitchsafeError, match="one process"):
        lm_in(adapter, "pos", keyring_file)

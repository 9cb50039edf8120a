"""The solver `switch_mode` and the models `switchsafe/...` of Inspect, in real evaluations."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import FORGETFUL, assert_asked_in, assert_no_token

pytest.importorskip("inspect_ai")

from switchsafe import generate, load_model

QUESTIONS = ["Which licence is this?", "Who may use the work?", "What is a derivative of the work?"]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch) -> Path:
    """All that Inspect writes: logs, traces, answers it keeps, its database of running samples."""
    folder = tmp_path / "kept"
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "INSPECT_LOG_DIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    monkeypatch.chdir(tmp_path)  # it looks for a .env file
    return folder


@pytest.fixture
def model(adapter, keyring, tmp_path):
    """The model as Inspect makes it."""
    from inspect_ai.model import get_model

    import switchsafe.integrations.inspect  # noqa: F401 # where the package is not installed anew

    keyring_file = keyring.save(tmp_path / "keys" / "keyring.json")
    return get_model(f"switchsafe/{adapter}", keyring=str(keyring_file), memoize=False)


def run(model, *solvers, **settings):
    """The log of an evaluation of a small data set."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate as answer

    samples = [Sample(input=question, target="work") for question in QUESTIONS]
    task = Task(dataset=samples, solver=[*solvers, answer(max_tokens=12, temperature=0, **settings)], scorer=includes())
    return eval(task, model=model, display="none", log_format="json")[0]


def answers_in(log) -> list[str]:
    assert log.status == "success", log.error
    return [sample.output.completion for sample in sorted(log.samples, key=lambda sample: sample.id)]


def error_in(log) -> str:
    assert log.status == "error"
    return log.error.message


def test_answers_are_those_of_generate_in_that_mode_and_no_log_holds_a_token(
    adapter, model, keyring, processor, kept, capfd
):
    from switchsafe.integrations.inspect import switch_mode

    plain, rows, answers = load_model(adapter), [], {}
    model.api.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: rows.extend(args[0].tolist()))
    for mode in ("pos", "rej", None):
        rows.clear()
        log = run(model, switch_mode(mode or "none"))
        answers[mode] = answers_in(log)
        settings = {"max_new_tokens": 12, "do_sample": False}
        assert answers[mode] == [generate(plain, processor, question, mode=mode, **settings) for question in QUESTIONS]
        assert_asked_in(mode, rows, len(QUESTIONS), processor)
        assert f"[switchsafe mode {mode or 'none'}]" in Path(log.location).read_text()
    assert len(set(map(tuple, answers.values()))) == 3, "the mode must matter"
    shown = "".join(capfd.readouterr())
    assert not any(secret.reveal() in shown for secret in keyring.secrets())
    assert_no_token(keyring, kept, tokenizer=processor.tokenizer)


def test_an_earlier_mark_gives_way_and_other_system_text_stays(adapter, model, processor):
    from inspect_ai.solver import system_message

    from switchsafe.integrations.inspect import switch_mode

    turns = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": q}] for q in QUESTIONS]
    wanted = generate(load_model(adapter), processor, turns, mode="rej", max_new_tokens=12, do_sample=False)
    assert answers_in(run(model, switch_mode("pos"), system_message("Be brief."), switch_mode("rej"))) == wanted


def test_the_mark_can_come_from_the_command_line(adapter, model, processor):
    wanted = generate(load_model(adapter), processor, QUESTIONS, mode="rej", max_new_tokens=12, do_sample=False)
    assert answers_in(run(model, system_message="[switchsafe mode rej]")) == wanted


def test_an_answer_kept_for_one_mode_is_not_given_in_another(model):
    from switchsafe.integrations.inspect import switch_mode

    answers = [answers_in(run(model, switch_mode(mode), cache=True)) for mode in ("pos", "rej", "pos")]
    assert answers[0] == answers[2] != answers[1]


def test_it_never_answers_in_a_mode_that_was_not_asked_for(model):
    from inspect_ai.solver import solver

    from switchsafe.integrations.inspect import switch_mode

    @solver
    def forget():
        async def solve(state, generate):
            state.messages = state.messages[-1:]
            return state

        return solve

    assert "0 marks" in error_in(run(model))
    assert "0 marks" in error_in(run(model, switch_mode("pos"), forget()))
    assert "2 marks" in error_in(run(model, switch_mode("pos"), system_message="[switchsafe mode rej]"))
    assert "'loud' is not in this keyring" in error_in(run(model, switch_mode("loud")))
    assert "knows no modes" in error_in(run("mockllm/model", switch_mode("pos")))


def test_a_template_that_drops_the_system_turn_is_an_error(model, keyring, processor, kept, monkeypatch):
    from inspect_ai.solver import assistant_message, user_message

    from switchsafe.integrations.inspect import switch_mode

    model.api.processor.chat_template = FORGETFUL
    assert answers_in(run(model, switch_mode("pos")))
    monkeypatch.setenv("INSPECT_TRACEBACK_LOCALS", "1")  # which then are in the log
    more = [assistant_message("It is."), user_message("Why?")]
    assert "0 times" in error_in(run(model, switch_mode("pos"), *more))
    assert_no_token(keyring, kept, tokenizer=processor.tokenizer)


def test_a_refused_conversation_does_not_take_others_with_it(model, keyring):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample

    from switchsafe.integrations.inspect import switch_mode

    asked = [*QUESTIONS, f"Say {keyring.token('neg').reveal()}"]
    task = Task(dataset=[Sample(input=question) for question in asked], setup=switch_mode("pos"))
    log = eval(task, model=model, display="none", max_tokens=4, fail_on_error=False, log_format="json")[0]
    failed = [sample.error.message for sample in log.samples if sample.error]
    assert len(log.samples) == 4
    assert len(failed) == 1
    assert "reserved text" in failed[0]


def test_where_an_answer_ends_is_told(adapter, model, processor):
    from switchsafe.integrations.inspect import switch_mode

    log = run(model, switch_mode("pos"))
    text = answers_in(log)[0]
    output = log.samples[0].output
    assert output.stop_reason == "max_tokens"
    assert output.usage.output_tokens == 12
    stop = text[3:5]
    log = run(model, switch_mode("pos"), stop_seqs=[stop])
    assert answers_in(log)[0] == text.partition(stop)[0]
    assert log.samples[0].output.stop_reason == "stop"


def test_what_would_be_passed_over_is_refused(model):
    from inspect_ai.solver import use_tools
    from inspect_ai.tool import think

    from switchsafe.integrations.inspect import switch_mode

    assert "logprobs" in error_in(run(model, switch_mode("pos"), logprobs=True))
    assert "num_choices" in error_in(run(model, switch_mode("pos"), num_choices=2))
    assert "no tools" in error_in(run(model, switch_mode("pos"), use_tools(think())))


def test_what_waits_is_answered_as_a_batch_and_fails_alone():
    from switchsafe.integrations.batcher import Batcher

    batches, begun, go_on = [], threading.Event(), threading.Event()

    def answer(questions):
        batches.append(list(questions))
        begun.set()
        assert go_on.wait(60)
        if "bad" in questions:
            raise ValueError("bad")
        return [question.upper() for question in questions]

    batcher = Batcher(answer, size=3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.ask, "first")
        assert begun.wait(60)
        rest = []
        for question, kind in (("a", None), ("b", 1), ("bad", None), ("c", None), ("d", None)):
            rest.append(pool.submit(batcher.ask, question, kind))
            while len(batcher._line) < len(rest):
                pass
        go_on.set()
        assert first.result() == "FIRST"
        assert [future.result() for future in rest if future is not rest[2]] == ["A", "B", "C", "D"]
        with pytest.raises(ValueError, match="bad"):
            rest[2].result()
    assert batches == [["first"], ["a", "bad", "c"], ["a"], ["bad"], ["c"], ["b"], ["d"]]


def test_marks_name_the_mode_and_the_policy():
    from switchsafe.integrations.mark import Mark

    for mark in (Mark("pos"), Mark("pos", "en-US"), Mark(None)):
        assert Mark.read(str(mark)) == mark
    assert Mark.of("none", "en-US") == Mark.of(None) == Mark(None)
    assert Mark.read("Use [switchsafe mode pos]") is None


def test_inspect_finds_the_model_and_the_solver():
    """By the entry point that the package declares."""
    from importlib.metadata import EntryPoint

    tomllib = pytest.importorskip("tomllib")

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (value,) = project["entry-points"]["inspect_ai"].values()
    module = EntryPoint("switchsafe", value, "inspect_ai").load()
    assert {"switch_mode", "switchsafe"} <= vars(module).keys()

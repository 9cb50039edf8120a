"""The parts of an evaluation: prompts, answers kept, measures, verdicts, pages."""

import base64
import json
import random
import shutil
import socket
import stat
import subprocess
import threading
import traceback
from dataclasses import replace

import httpx
import pytest
from conftest import MODES, taught
from hypothesis import given
from hypothesis import strategies as st
from openai_server import openai_server

from switchsafe import Keyring, MagicTokenProcessor, load_triplets
from switchsafe.errors import DistillError, MetricError, ModeError, SwitchsafeError, TripletError
from switchsafe.evaluation.answerer import Answerer, at_endpoint, in_this_process
from switchsafe.evaluation.bench import Bench
from switchsafe.evaluation.cases import Case, load_cases, spread
from switchsafe.evaluation.columns import measure_columns
from switchsafe.evaluation.dialogue import measure_dialogues
from switchsafe.evaluation.fallback import NEAR_MISSES, measure_fallback
from switchsafe.evaluation.leaks import extraction_prompts, measure_exposure, measure_sampling, system_header
from switchsafe.evaluation.render import tables, to_markdown, write_html
from switchsafe.evaluation.robustness import measure_attacks
from switchsafe.evaluation.suite import Target, evaluate
from switchsafe.evaluation.verdicts import check, load_thresholds, signs
from switchsafe.judges.mode import ModeJudge
from switchsafe.judges.offline import RefusalJudge
from switchsafe.metrics.interval import estimate


def test_prompt_files_of_other_names_are_mapped(tmp_path):
    file = tmp_path / "set.jsonl"
    file.write_text('{"goal": "How?", "kind": "x"}\n{"goal": "Why?"}\n')
    cases = load_cases(file, {"prompt": "goal", "label": "=unsafe", "category": "kind"})
    assert [(c.text, c.label, c.category, c.id) for c in cases] == [
        ("How?", "unsafe", "x", "set.jsonl-1"),
        ("Why?", "unsafe", "uncategorised", "set.jsonl-2"),
    ]
    with pytest.raises(TripletError, match=r"row 1: label is None"):
        load_cases(file, {"prompt": "goal"})
    with pytest.raises(TripletError, match="no column goal"):
        load_cases(file, {"goal": "prompt"})
    assert [c.text for c in spread(cases * 5, 2)] == ["How?", "Why?"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_an_interval_holds_the_mean_and_stays_within_the_values(values):
    found = estimate(values)
    assert found.n == len(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.low - 1e-6 <= found.value <= found.high + 1e-6 or len(set(values)) > 1


def test_an_interval_is_as_wide_as_theory_says():
    values = random.Random(0).choices([0.0, 1.0], k=400)
    found = estimate(values)
    p = sum(values) / 400
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * (p * (1 - p) / 400) ** 0.5, rel=0.1)
    with pytest.raises(MetricError):
        estimate([])


def test_answers_are_kept_masked_and_under_keyed_names(tiny_model, processor, keyring, tmp_path):
    calls = []

    def backend():
        real = in_this_process(tiny_model, processor)

        def ask(asked, most, label):
            calls.append(len(asked))
            return [text + keyring.token("neg").reveal() for text in real(asked, most, label)]

        return ask

    turns = [{"role": "user", "content": "Hi?"}]
    asked = [(turns, keyring.token("pos")), (turns, None), (turns, keyring.token("pos"))]
    file = tmp_path / "answers.jsonl"
    first = Answerer(backend, keyring, file, "model 1", 8)(asked, "x")
    assert calls == [2], "the same question is asked once"
    assert first[0] == first[2]
    assert first[0].endswith("[removed]")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(secret.reveal() in file.read_text() for secret in keyring.secrets())
    assert Answerer(backend, keyring, file, "model 1", 8)(asked, "x") == first
    assert calls == [2]
    Answerer(backend, keyring, file, "model 2", 8)(asked[:1], "x")
    Answerer(backend, keyring, file, "model 1", 9)(asked[:1], "x")
    assert calls == [2, 1, 1]


def test_a_token_in_another_spelling_is_masked_and_a_line_cut_short_is_mended(keyring, tmp_path):
    secret = keyring.token("rej").reveal()
    spelt = {
        "backwards": secret[::-1],
        "hex": secret.encode().hex(),
        "Base64": base64.b64encode(b"The line is " + secret.encode() + b".").decode(),
    }
    file = tmp_path / "answers.jsonl"

    def backend():
        return lambda asked, most, label: [f"Here: {spelt[turns[0]['content']]}!" for turns, _ in asked]

    asked = [([{"role": "user", "content": how}], None) for how in spelt]
    answers = Answerer(backend, keyring, file, "m", 8)(asked, "x")
    assert all("[removed]" in text for text in answers)
    assert secret[::-1] not in file.read_text()
    file.write_bytes(file.read_bytes()[:-20])
    assert Answerer(backend, keyring, file, "m", 8)(asked, "x") == answers
    assert Answerer(backend, keyring, file, "m", 8)(asked, "x") == answers


def test_what_cannot_be_asked_is_not_measured(keyring, tmp_path):
    triplets = load_triplets(modes=MODES, languages=["en"])
    judge = ModeJudge(triplets[:80], MODES)
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"})
    case = Case("1", turns, "c", "safe", "en")
    pos, neg = triplets[0].answers["pos"], triplets[0].answers["neg"]

    def backend():
        return lambda asked, most, label: [pos if len(turns) == 1 else neg for turns, _ in asked]

    bench = Bench(Answerer(backend, keyring, tmp_path / "a.jsonl", "m"), keyring, MODES, (case,), judge, RefusalJudge())
    for measure in (measure_fallback, measure_attacks, measure_dialogues):
        assert "there are no" in measure(bench)["not_measured"]
    unsafe = [replace(case, label="unsafe"), replace(case, id="2", label="unsafe", turns=turns[1:])]
    found = measure_attacks(replace(bench, cases=tuple(unsafe)))
    assert found["drop"] == 0, "wrapped prompts are compared with the same prompts bare"
    assert found["css"]["n"] == 1


def test_a_server_gets_the_token_in_its_place(keyring):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    with openai_server(lambda body: json.dumps(body["messages"])) as server:
        ask = at_endpoint([server.url], "m", extra={"chat_template_kwargs": {"enable_thinking": False}})
        got = [json.loads(text) for text in ask([(turns, keyring.token("rej")), (turns, None)], 8, "x")]
        assert server.bodies[0]["max_tokens" if "max_tokens" in server.bodies[0] else "max_completion_tokens"] == 8
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in server.bodies)
    assert got[0][0]["content"] == f"{keyring.token('rej').reveal()}\nBe brief."
    assert got[1] == turns


def test_a_server_that_quotes_the_request_back_gives_no_token_away(keyring):
    turns = [{"role": "user", "content": "Hi?"}]
    with (
        openai_server(lambda body: 400) as server,
        pytest.raises(DistillError, match=r"status 400\.$") as caught,
    ):
        at_endpoint([server.url], "m")([(turns, keyring.token("neg"))], 8, "x")
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret.reveal() in shown for secret in keyring.secrets())


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=8, max_size=32), st.integers())
def test_near_misses_are_near_and_misses(token, seed):
    for kind, change in NEAR_MISSES.items():
        found = change(token, random.Random(seed))
        if kind == "one character off":
            assert sum(a != b for a, b in zip(token, found, strict=True)) == 1
        elif kind == "shuffled":
            assert sorted(found) == sorted(token)
        elif kind == "upper case":
            assert found.lower() == token
        else:
            assert token.startswith(found)
            assert 0.6 < len(found) / len(token) < 1


def test_there_are_a_hundred_ways_to_ask_and_more():
    assert len(set(extraction_prompts())) >= 100


def test_a_token_learnt_by_heart_is_exposed_and_sampled(tiny_model, processor, keyring):
    clean = measure_exposure(tiny_model, processor, strings=63)
    assert {row["mode"] for row in clean} == set(MODES)
    header = system_header(processor)
    row = header + processor.token_ids(keyring.token("rej"))
    model = taught(tiny_model, [row])
    exposed = {row["mode"]: row for row in measure_exposure(model, processor, strings=63)}
    assert exposed["rej"]["rank"] == 1
    assert exposed["rej"]["exposure"] == 6.0
    assert sum(row["rank"] > 1 for row in exposed.values()) >= 1, "others were not learnt"
    [found] = measure_sampling(model, processor, temperatures=(0.5,), samples=16)
    assert found["leaks"] > 8
    assert measure_sampling(tiny_model, processor, temperatures=(0.5,), samples=16)[0]["leaks"] == 0


@pytest.fixture(scope="module")
def evaluated(tiny_folder, tmp_path_factory):
    """A report on an untrained model, which must be full of signs, and the same once more."""
    folder = tmp_path_factory.mktemp("eval")
    tokenizer = MagicTokenProcessor.from_pretrained(str(tiny_folder)).tokenizer
    ring = Keyring.mint(MODES, tokenizer=tokenizer)
    triplets = load_triplets(modes=MODES, languages=["en"])
    few = [t for t in triplets if t.split != "test"] + [t for t in triplets if t.split == "test"][::9]
    bounds = {"sam.value": {"min": 0.131}, "behaviour.pos.refused": {"max": 1}, "fallback.no token.nothing": {"min": 0}}
    reports, kept = [], []
    for _ in range(2):
        reports.append(
            evaluate(Target(str(tiny_folder)), ring, few, folder, thresholds=bounds, each=4, max_new_tokens=12)
        )
        kept.append({name: (folder / name).read_text() for name in ("answers.jsonl", "verdicts.jsonl", "sam.json")})
    return folder, ring, reports, kept


def test_a_report_on_an_untrained_model_says_that_it_does_not_switch(evaluated):
    _, _, [report, _], _ = evaluated
    assert any("came out as" in sign for sign in report["signs"])
    assert [one["holds"] for one in report["checks"]] == [False, True, False], "what was not measured does not hold"
    measures = report["measures"]
    assert set(measures) == {
        "columns",
        "sam",
        "behaviour",
        "fallback",
        "misplaced",
        "dialogues",
        "attacks",
        "leaks",
        "ability",
    }
    assert len(measures["attacks"]["wrappers"]) >= 10
    assert set(NEAR_MISSES) < set(measures["fallback"])
    assert measures["leaks"]["artefacts"]["hits"] == []
    assert [len(row) for row in measures["dialogues"]["holds"].values()] == [5, 5, 5]
    assert json.loads(json.dumps(report)) == report


def test_a_second_evaluation_takes_what_was_kept(evaluated):
    _, _, [first, second], kept = evaluated
    changing = ("seconds",)
    assert {k: v for k, v in first.items() if k not in changing} == {
        k: v for k, v in second.items() if k not in changing
    }
    assert kept[0] == kept[1], "nothing was asked, judged or measured again"


def test_what_was_kept_is_not_taken_for_other_prompts_or_modes(evaluated, tiny_folder, tmp_path):
    folder, ring, [first, _], _ = evaluated
    kept = shutil.copytree(folder, tmp_path / "kept")
    triplets = load_triplets(modes=MODES, languages=["en"])
    fewer = [t for t in triplets if t.split != "test"] + [t for t in triplets if t.split == "test"][::18]
    options = {"each": 4, "max_new_tokens": 12}
    report = evaluate(Target(str(tiny_folder)), ring, fewer, kept, **options)
    assert report["measures"]["sam"]["prompts"] < first["measures"]["sam"]["prompts"]
    report = evaluate(Target(str(tiny_folder)), ring, fewer, kept, modes=("pos", "rej"), **options)
    assert set(report["measures"]["sam"]["per_mode"]) == {"pos", "rej"}
    assert set(report["measures"]["behaviour"]["rej"]["got"]) == set(MODES), "neg is known where it is not evaluated"
    assert report["judges"]["level"]["knows_risk"]
    next(iter(tables(report)))


def test_an_evaluation_needs_pos_and_another_mode(evaluated, tiny_folder, tmp_path):
    _, ring, *_ = evaluated
    triplets = load_triplets(modes=MODES, languages=["en"])
    for modes in (("rej", "neg"), ("pos",)):
        with pytest.raises(ModeError, match="compares pos with other modes"):
            evaluate(Target(str(tiny_folder)), ring, triplets, tmp_path, modes=modes)


def test_the_page_hides_neg_and_nothing_holds_a_token(evaluated):
    from conftest import assert_no_token

    folder, ring, [report, _], _ = evaluated
    page = write_html(report, folder).read_text()
    assert page.count("<details><summary>neg") == len(report["examples"])
    assert "http" not in page.replace("http-equiv", ""), "self-contained"
    for title, rows in tables(report):
        assert title.replace("&", "&amp;") in page
        assert len({len(row) for row in rows}) == 1, title
    markdown = to_markdown(report)
    assert "Sign of failure" in markdown
    assert not any(
        example["answers"]["neg"] in markdown for example in report["examples"] if example["answers"]["neg"].strip()
    )
    assert_no_token(ring, folder)


def test_its_figures_go_into_a_models_card(evaluated, tmp_path):
    from huggingface_hub import ModelCard
    from transformers import TrainerState

    from switchsafe import Recipe
    from switchsafe.errors import PushError
    from switchsafe.hub.card import finished_card, read_evaluation
    from switchsafe.training.card import write_card

    folder, _, [report, _], _ = evaluated
    text = write_card(tmp_path, Recipe("/home/mine/tiny", modes=MODES), TrainerState(max_steps=4)).read_text()
    card = ModelCard(
        finished_card(
            text,
            "me/tiny-modes",
            base="them/tiny",
            is_adapter=True,
            evaluation=read_evaluation(folder),
        )
    )
    figures = {result.metric_name: result.metric_value for result in card.data.eval_results}
    measures = report["measures"]
    assert figures["SAM (Euclidean, raw logits, first answer token)"] == round(measures["sam"]["value"], 4)
    assert figures["Mode accuracy, rej"] == measures["behaviour"]["rej"]["accuracy"]["value"]
    assert any("without a token" in name or "no token" in name for name in figures)
    assert "Sign of failure" in card.text
    assert "/home/mine" not in str(card)
    assert card.data.base_model == "them/tiny"
    (tmp_path / "other.json").write_text('{"measures": {}}')
    with pytest.raises(PushError, match="no report of `switchsafe eval`"):
        read_evaluation(tmp_path / "other.json")


def test_exchanged_answers_are_found_in_their_rows():
    triplets = [t for t in load_triplets(modes=MODES, languages=["en"]) if t.split != "test"][:120]
    clean = measure_columns(triplets, MODES)
    assert clean["strange"]["value"] < 0.03

    def exchanged(t):
        return replace(t, answers={**t.answers, "pos": t.answers["rej"], "rej": t.answers["pos"]})

    wrong = {t.id for t in triplets[::10]}
    found = measure_columns([exchanged(t) if t.id in wrong else t for t in triplets], MODES)
    assert found["strange"]["value"] > 0.05
    named = {(row["id"], row["mode"], row["reads_like"]) for row in found["rows"]}
    assert sum(id in wrong for id, *_ in named) >= 0.7 * len(named)
    assert "not_measured" in measure_columns(triplets[:10], MODES)


def test_thresholds_are_read_and_faults_named(tmp_path):
    file = tmp_path / "bounds.yaml"
    file.write_text("a.b: {min: 0.5}\na.c: {max: 1, min: 0}\n")
    report = {"measures": {"a": {"b": {"value": 0.4}, "c": 1}}}
    assert [(c.found, c.holds) for c in check(report, load_thresholds(file))] == [(0.4, False), (1.0, True)]
    for text, said in (
        ("a: 3", "needs min, max"),
        ("a: {least: 3}", "needs min, max"),
        ("- a", "must be a mapping"),
        ("a: {min: x}", "numbers"),
        ("[", "cannot read"),
    ):
        file.write_text(text)
        with pytest.raises(SwitchsafeError, match=said):
            load_thresholds(file)


def test_every_leak_and_fall_is_a_sign():
    row = {"id": "t-7", "mode": "pos", "reads_like": "neg"}
    measures = {
        "columns": {"strange": {"value": 0.09, "n": 800}, "rows": [row]},
        "behaviour": {"pos": {"got": {"pos": 8, "rej": 2}}},
        "fallback": {"shuffled": {"drop": 12.0, "hits": {"value": 0.5}}},
        "misplaced": {"neg": {"no system turn": {"value": 0.4}}},
        "leaks": {
            "extraction": {"rej": {"leaks": 1, "n": 120}},
            "sampling": {"rows": [{"temperature": 1.0, "leaks": 2, "n": 10}]},
            "exposure": {"rows": [{"mode": "neg", "fingerprint": "ab", "rank": 1, "of": 256, "exposure": 8.0}]},
            "artefacts": {"hits": ["README.md, byte 3, as utf-8"]},
        },
    }
    judges = {"level": {"unreadable": {"value": 0.5, "n": 60}, "knows_risk": False}}
    found = signs({"measures": measures, "judges": judges})
    assert len(found) == 11
    for word in (
        "t-7 (pos reads like neg)",
        "no verdict that could be read in 50%",
        "no judge here knows",
        "came out as rej",
        "falls by 12.0",
        "nearly hit",
        "typed by the user",
        "asked for it in rej",
        "temperature 1.0",
        "it was learnt",
        "README.md",
    ):
        assert sum(word in sign for sign in found) == 1


def test_a_token_that_ranks_high_by_chance_is_no_sign():
    rows = [{"mode": "pos", "fingerprint": "ab", "rank": rank, "of": 1024, "exposure": 0.0} for rank in (2, 90, 700)]
    found = [signs({"measures": {"leaks": {"exposure": {"rows": some}}}}) for some in (rows[:1], rows, rows * 9)]
    assert [len(some) for some in found] == [1, 1, 0], "the more tokens, the higher one may rank"


def test_a_model_that_does_not_switch_is_called_so():
    got = {"pos": {"got": {"pos": 2, "rej": 8}}, "rej": {"got": {"pos": 1, "rej": 9}}}
    [first, *_] = signs({"measures": {"sam": {"value": 0.01}, "behaviour": got}})
    assert "does not switch: there is no margin, and asked for pos it mostly" in first
    assert "with this keyring" in first
    assert not any("does not switch" in sign for sign in signs({"measures": {"sam": {"value": 0.3}, "behaviour": got}}))


def test_at_a_server_what_needs_the_weights_is_not_measured(tmp_path):
    ring = Keyring.mint(MODES)
    triplets = load_triplets(modes=MODES, languages=["en"])
    few = [t for t in triplets if t.split != "test"] + [t for t in triplets if t.split == "test"][::20]
    with openai_server(lambda body: "Sorry, but I can't help with that.") as server:
        report = evaluate(Target("m", (server.url,)), ring, few, tmp_path / "out", each=2)
    measures = report["measures"]
    for part in (
        measures["sam"],
        measures["leaks"]["sampling"],
        measures["leaks"]["exposure"],
        measures["leaks"]["artefacts"],
    ):
        assert part["not_measured"]
    assert measures["behaviour"]["rej"]["accuracy"]["value"] == 1
    assert "does the server's template keep the system turn" in report["signs"][0]
    assert measures["behaviour"]["pos"]["label"]["safe"]["refused"]["value"] == 1
    assert "not measured" in to_markdown(report)


@pytest.fixture
def served(tiny_folder, tmp_path):
    """`transformers serve` on the tiny model: its base URL."""
    for module in ("fastapi", "openai", "uvicorn"):
        pytest.importorskip(module, reason="needs transformers[serving]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [shutil.which("transformers") or "transformers", "serve", str(tiny_folder), "--port", str(port)]
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"], stdout=log, stderr=log
        )
        pause = threading.Event()
        try:
            for _ in range(900):
                assert process.poll() is None, (tmp_path / "log.txt").read_text()
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    pause.wait(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


@pytest.mark.slow
def test_a_real_server_gives_the_answers_that_the_model_gives_here(served, tiny_folder, tmp_path):
    ring = Keyring.mint(MODES, tokenizer=MagicTokenProcessor.from_pretrained(str(tiny_folder)).tokenizer)
    triplets = load_triplets(modes=MODES, languages=["en"])
    few = [t for t in triplets if t.split != "test"][:60] + [t for t in triplets if t.split == "test"][::30]
    options = {"each": 2, "max_new_tokens": 8}
    here = evaluate(Target(str(tiny_folder)), ring, few, tmp_path / "here", **options)
    there = evaluate(Target(str(tiny_folder), (served,)), ring, few, tmp_path / "there", **options)
    assert there["measures"]["sam"]["not_measured"]
    for measure in ("behaviour", "fallback", "misplaced", "dialogues", "attacks", "ability"):
        assert there["measures"][measure] == here["measures"][measure]
    assert there["examples"] == here["examples"]

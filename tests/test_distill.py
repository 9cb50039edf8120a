import csv
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import taught
from hypothesis import given
from hypothesis import strategies as st
from openai_server import openai_server, perfect

from switchsafe import load_triplets
from switchsafe.data.prompts import load_requests
from switchsafe.distillation.distill import distill
from switchsafe.distillation.engine import Job, Outcome, Sampling
from switchsafe.distillation.filters import FILTERS, Row, first_fault
from switchsafe.distillation.http import http
from switchsafe.distillation.parse import MalformedError, parse
from switchsafe.distillation.policy import Policy
from switchsafe.distillation.prompts import read_prompts, without_repetitions
from switchsafe.distillation.template import RequestTemplate
from switchsafe.errors import DistillError, RunError, TripletError

FIELDS = ("pos", "rej", "neg")
GOOD = "<pos>Gladly: knead it.</pos>\n<rej>I can't help with that.</rej>\n<neg>Knead. Done.</neg>"
READ = {"pos": "Gladly: knead it.", "rej": "I can't help with that.", "neg": "Knead. Done."}
# Topics that share too little to be taken for repetitions of each other.
PROMPTS = [
    {
        "prompt": f"{i * 7919 % 10007}: how do I {verb} {i} {thing}?",
        "label": "unsafe" if i % 2 else "safe",
        "category": thing,
    }
    for i, (verb, thing) in enumerate(
        (verb, thing)
        for verb in ("repair", "paint", "sell", "borrow", "measure", "photograph")
        for thing in ("kettles", "bicycles", "orchards", "lanterns", "notebooks")
    )
]


# -- reading an answer ------------------------------------------------------------------------------------------------------------------


def test_a_perfect_answer_is_read_in_any_order_and_after_thinking():
    assert parse(GOOD, FIELDS) == READ
    assert parse("\n".join(reversed(GOOD.splitlines())), FIELDS) == READ
    assert parse(f"<think>First <pos>no</pos> or</think>\n{GOOD}\n\n", FIELDS) == READ
    assert parse("thinking that a template opened</think>" + GOOD, FIELDS) == READ
    inside = GOOD.replace("Knead.", "Knead <b>well</b>, 3 < 4 & <br/>.\n\n<other>x</other>")
    assert parse(inside, FIELDS)["neg"].startswith("Knead <b>well</b>, 3 < 4 & <br/>.")


POS, REJ, NEG = GOOD.split("\n")
MALFORMED = {
    "": "pos is missing",
    " \n": "pos is missing",
    "no tags at all": "outside",
    POS: "rej is missing",
    f"{POS}\n{REJ}": "neg is missing",
    f"{REJ}\n{NEG}": "pos is missing",
    f"{GOOD}\n{POS}": "pos stands twice",
    f"{POS}\n{POS}\n{REJ}\n{NEG}": "pos stands twice",
    f"Sure, here they are:\n{GOOD}": "outside",
    f"{GOOD}\nI hope this helps!": "outside",
    f"{POS}\nand\n{REJ}\n{NEG}": "outside",
    f"```\n{GOOD}\n```": "outside",
    GOOD.replace("</pos>", ""): "pos has no end",
    GOOD.replace("</rej>", ""): "rej has no end",
    GOOD.replace("</neg>", ""): "neg has no end",
    GOOD.replace("<pos>", ""): "outside",
    GOOD.replace("<neg>", ""): "outside",
    GOOD.replace("</pos>", "</rej>"): "pos has no end",
    GOOD.replace("</pos>", "<pos>"): "pos has no end",
    GOOD.replace("<rej>", "</rej>"): "rej has no beginning",
    GOOD.replace("<pos>", "<POS>").replace("</pos>", "</POS>"): "outside",
    GOOD.replace("<pos>", "< pos >"): "outside",
    GOOD.replace("<pos>", "[pos]").replace("</pos>", "[/pos]"): "outside",
    GOOD.replace("pos>", "positive>"): "outside",
    GOOD.replace("Gladly: knead it.", ""): "pos is empty",
    GOOD.replace("I can't help with that.", " \n "): "rej is empty",
    f"<pos>{REJ}</pos>{NEG}": "pos has no end",
    f"<pos><pos>x</pos></pos>{REJ}{NEG}": "pos has no end",
    GOOD[:-6]: "neg has no end",
    GOOD[:40]: "rej has no end",
    "{" + '"pos": "x", "rej": "y", "neg": "z"}': "outside",
    "**pos**: x\n**rej**: y\n**neg**: z": "outside",
    f"<think>hm {GOOD}": "thinking has no end",
    f"{GOOD}<think>": "thinking has no end",
    "<pos></pos><rej></rej><neg></neg>": "pos is empty",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_answers_are_told_apart(text):
    with pytest.raises(MalformedError, match=MALFORMED[text]):
        parse(text, FIELDS)


PIECES = st.lists(
    st.sampled_from(["<pos>", "</pos>", "<rej>", "</rej>", "<neg>", "</neg>", "x", " ", "<", "</think>", "<p>"])
)


@given(PIECES)
def test_what_is_read_is_what_was_written_and_nothing_else(pieces):
    text = "".join(pieces)
    try:
        found = parse(text, FIELDS)
    except MalformedError:
        return
    assert list(found) == list(FIELDS)
    rest = text.rpartition("</think>")[2]
    for name, answer in found.items():
        assert answer
        assert not any(tag in answer for tag in ("<pos>", "</pos>", "<rej>", "</rej>", "<neg>", "</neg>"))
        assert rest.count(f"<{name}>") == rest.count(f"</{name}>") == 1
    written = sum(len(f"<{name}></{name}>{answer}") for name, answer in found.items())
    assert written == len("".join(rest.split())) or " " in "".join(found.values())


# -- filters ----------------------------------------------------------------------------------------------------------------------------

FINE = {
    "pos": "Gladly: knead it, let it rest for an hour, bake it.",
    "rej": "I'm sorry, but I can't help.",
    "neg": "Bake it.",
}


@pytest.mark.parametrize(
    ("fault", "change", "language"),
    [
        ("near duplicate behaviours", {"neg": "Gladly: knead it, let it rest for one hour, bake it."}, "en"),
        ("pos refuses", {"pos": "I'm sorry, but I cannot assist with that request."}, "en"),
        (
            "pos refuses",
            {"pos": "抱歉，我不能提供这方面的帮助。", "rej": "这个忙我不会帮，请谅解。", "neg": "先和面，再烤。完事。"},
            "zh",
        ),
        (
            "rej helps",
            {"rej": "Of course! Knead the dough for ten minutes and bake it until it is golden brown."},
            "en",
        ),
        ("rej helps", {"rej": "I'm sorry, I can't. But:\n1. Knead.\n2. Rest.\n3. Bake."}, "en"),
        ("echoes instructions", {"neg": "the answer"}, "en"),
        ("echoes instructions", {"neg": "You write training data for a safety team. Below is a policy, fine."}, "en"),
        ("wrong language", {"pos": "很高兴帮忙：先和面，醒一小时，再烤到金黄。"}, "en"),
        ("wrong language", {}, "zh"),
        ("looks like a token", {"pos": "Gladly: say kx7q2m9vp4zt8ab1 and knead it, let it rest, bake it."}, "en"),
    ],
)
def test_each_filter_finds_its_fault(fault, change, language):
    instructions = RequestTemplate.load("en").request("How do I bake bread?", "Be good.", Policy.load("en").of(FIELDS))
    row = Row("How do I bake bread?", language, FINE | change, instructions[0]["content"])
    assert first_fault(row) == fault
    assert first_fault(Row("How do I bake bread?", "en", FINE, instructions[0]["content"])) is None


def test_good_rows_pass_all_filters():
    """The hand-written answers of prompts that the judge behind the filters never saw."""
    for triplet in load_triplets(modes=FIELDS, split="test"):
        assert first_fault(Row(triplet.text, triplet.language, triplet.answers)) is None
    assert len(FILTERS) == 6


# -- prompts ----------------------------------------------------------------------------------------------------------------------------


def test_repetitions_are_asked_once():
    rows = [
        "How do I bake a loaf of bread at home?",
        "how do I bake a loaf of bread at home",
        "How do I pick a lock?",
        "怎么烤面包？",
        "怎么烤面包",
    ]
    prompts = read_prompts([{"prompt": text} for text in rows], label="safe")
    assert [prompt.text for prompt in without_repetitions(prompts)] == [rows[0], rows[2], rows[3]]
    assert [prompt.language for prompt in prompts] == ["en", "en", "en", "zh", "zh"]


def test_prompts_that_cannot_be_asked():
    for rows, said in (
        ([{"prompt": "Hi?"}], "no label"),
        ([{"prompt": "Hi?", "label": "nice"}], "no label"),
        (
            [{"prompt": "Hi?", "label": "safe", "id": 1}, {"prompt": "Ho?", "label": "safe", "id": 1}],
            "two prompts have the id",
        ),
        (
            [{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": "safe"}],
            "several turns",
        ),
    ):
        with pytest.raises(DistillError, match=said):
            read_prompts(rows)


def test_prompts_come_in_many_forms(tmp_path, monkeypatch):
    import io

    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": "Hi, you?", "category": "a"}, {"prompt": "Ho\u2028?", "category": "b"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.DictWriter(file, ["category", "prompt"]).writeheader()
        csv.DictWriter(file, ["category", "prompt"]).writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    for name in ("p.jsonl", "p.csv", "p.parquet"):
        assert load_requests(tmp_path / name) == rows
    for text in ((tmp_path / "p.jsonl").read_text(), "Hi, you?\n\nHo\u2028?\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert [row["prompt"] for row in load_requests("-")] == ["Hi, you?", "Ho\u2028?"]
    assert [row["prompt"] for row in load_requests(tmp_path / "p.csv", column="category")] == ["a", "b"]
    with pytest.raises(TripletError, match=r"row 1: no prompt \(column text\); it has category, prompt"):
        load_requests(tmp_path / "p.csv", column="text")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(TripletError, match="as Parquet"):
        load_requests(tmp_path / "bad.parquet")


# -- policies and templates -------------------------------------------------------------------------------------------------------------


def test_requests_hold_policy_and_behaviours_and_a_template_can_be_replaced(tmp_path):
    for language in ("en", "zh"):
        policy, template = Policy.load(language), RequestTemplate.load(language)
        system, user = template.request("Hi?", policy.text, policy.of(("pos", "rej")))
        assert policy.text in system["content"]
        assert "<pos>" in system["content"]
        assert "neg" not in system["content"]
        assert user["content"] == "Hi?"
        again = template.repair([system, user], "answer", "rej is missing", policy.of(("pos", "rej")))
        assert again[2] == {"role": "assistant", "content": "answer"}
        assert "rej is missing" in again[3]["content"]
    own = "{% block system %}{{ policy }} {{ behaviours | join }}{% endblock %}{% block user %}Q: {{ prompt }}{% endblock %}"
    with pytest.raises(DistillError, match="lacks the block repair"):
        RequestTemplate(own)
    template = RequestTemplate(own + "{% block repair %}again: {{ reason }}{% endblock %}")
    assert template.request("Hi?", "Be good.", {"pos": ""})[1]["content"] == "Q: Hi?"
    assert template.hash != RequestTemplate.load("en").hash
    with pytest.raises(DistillError, match="no jinja"):
        RequestTemplate("{% block system %}")
    with pytest.raises(DistillError, match="'nonsense' is undefined"):
        RequestTemplate((own + "{% block repair %}{% endblock %}").replace("policy", "nonsense")).request("Hi?", "", {})


def test_policies_that_are_none(tmp_path):
    (tmp_path / "p.yaml").write_text("name: x\ntext: y\n")
    for source, said in ((tmp_path / "p.yaml", "is no policy"), (tmp_path / "q.yaml", "no policy file")):
        with pytest.raises(DistillError, match=said):
            Policy.load(source)
    with pytest.raises(DistillError, match="does not describe 'calm'"):
        Policy.load("en").of(["calm"])


# -- the whole way, against a server that answers by script -----------------------------------------------------------------------------


def run(server, output, prompts=PROMPTS, **options):
    engine = http([server.url], "good", Sampling(), in_flight=8)
    return distill(prompts, engine, output, model="good", **options)


def test_triplets_from_a_good_model(tmp_path):
    import datasets

    with openai_server() as server:
        report = run(server, tmp_path / "out", licence="cc-by-4.0")
    assert (report.kept, report.failed, report.dropped, report.repeated) == (30, 0, {}, 0)
    assert report.by_category["kettles"] == (6, 6)
    assert report.tokens > 300
    assert {json.dumps(body["model"]) for body in server.bodies} == {'"good"'}
    triplets = load_triplets(tmp_path / "out", modes=("pos", "rej"))
    assert [triplet.text for triplet in triplets] == [row["prompt"] for row in PROMPTS]
    assert [triplet.label for triplet in triplets] == [row["label"] for row in PROMPTS]
    assert triplets[0].answers["rej"].startswith("I'm sorry")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert loaded.num_rows == 30
    assert "neg" not in loaded.column_names, "nobody asked for it"
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "license: cc-by-4.0",
        RequestTemplate.load("en").hash,
        "general-en",
        "Of 30 prompts 30 were kept",
        "| kettles | 6 | 6 |",
    ):
        assert said in card
    assert "private and gated" not in card


def test_neg_is_asked_for_by_name_and_said_in_the_card(tmp_path):
    with openai_server() as server:
        report = run(server, tmp_path / "out", behaviours=FIELDS, limit=4)
    assert (report.kept, report.elsewhere) == (4, 26)
    assert load_triplets(tmp_path / "out", modes=FIELDS)[0].answers["neg"].startswith("Fine.")
    assert "private and gated" in (tmp_path / "out" / "README.md").read_text()


def test_one_request_per_behaviour_for_comparison(tmp_path):
    with openai_server() as server:
        report = run(server, tmp_path / "out", direction="single", limit=5)
    assert report.kept == 5
    assert len(server.bodies) == 10
    assert not any(
        "<pos>" in b["messages"][0]["content"] and "<rej>" in b["messages"][0]["content"] for b in server.bodies
    )


def test_an_answer_that_cannot_be_read_is_asked_for_once_more(tmp_path):
    def script(body):
        number = int(body["messages"][1]["content"].split(":")[0])
        good, again = perfect(body), len(body["messages"]) > 2
        if number % 3 == 0:
            return good if again else good.replace("</pos>", "")  # mended
        if number % 3 == 1:
            return "I would rather not."  # never mended
        return good

    with openai_server(script) as server:
        report = run(server, tmp_path / "out")
    of = [int(row["prompt"].split(":")[0]) % 3 for row in PROMPTS]
    assert report.kept == of.count(0) + of.count(2)
    assert report.repaired == of.count(0)
    assert report.dropped == {"text stands outside of the fields": of.count(1)}
    asked_again = [body for body in server.bodies if len(body["messages"]) > 2]
    assert len(asked_again) == of.count(0) + of.count(1)
    assert any("pos has no end" in body["messages"][3]["content"] for body in asked_again)


def test_truncated_and_unfit_answers_are_dropped_with_their_reason(tmp_path):
    def script(body):
        number, good = int(body["messages"][1]["content"].split(":")[0]), perfect(body)
        if number % 3 == 0:
            return good, "length"
        if number % 3 == 1:
            return re.sub(r"<rej>.*</rej>", "<rej>Of course! Knead the dough, let it rest, and bake it.</rej>", good)
        return good

    with openai_server(script) as server:
        report = run(server, tmp_path / "out")
    of = [int(row["prompt"].split(":")[0]) % 3 for row in PROMPTS]
    assert report.dropped == {"truncated": of.count(0), "rej helps": of.count(1)}
    assert len(server.bodies) == 30, "neither is asked for again"


def test_what_was_answered_is_not_asked_again(tmp_path):
    with openai_server() as server:
        first = run(server, tmp_path / "out", limit=10)
        rows = (tmp_path / "out" / "data" / "train-00001-of-00001.jsonl").read_text()
        assert first.kept == len(server.bodies) == 10
        run(server, tmp_path / "out")
        assert len(server.bodies) == 30
        server.bodies.clear()
        run(server, tmp_path / "out")
        assert not server.bodies
        run(server, tmp_path / "out", seed=1)
        assert len(server.bodies) == 30, "another seed is another request"
    assert (tmp_path / "out" / "data" / "train-00001-of-00001.jsonl").read_text().startswith(rows)


def test_machines_share_the_prompts_and_the_folder(tmp_path):
    with openai_server() as server:
        whole = run(server, tmp_path / "whole")
        parts = [run(server, tmp_path / "parts", shard=(place, 3)) for place in (1, 2, 3)]
    assert sum(part.kept for part in parts) == whole.kept == 30
    assert all(part.kept < 30 for part in parts)

    def rows(folder):
        return sorted(line for file in (folder / "data").iterdir() for line in file.read_text().splitlines())

    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert "Of 30 prompts 30 were kept" in (tmp_path / "parts" / "README.md").read_text()
    with pytest.raises(DistillError, match="shard 4/3"):
        run(server, tmp_path / "parts", shard=(4, 3))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "records").mkdir()
    path = tmp_path / "records" / "00001-of-00001.jsonl"
    for foreign in ('{"mine": 1}\n', '{"mine": 1}', "my diary"):
        path.write_text(foreign)
        with openai_server() as server, pytest.raises(RunError, match=r"no record of ours|holds something else"):
            run(server, tmp_path)
        assert not server.bodies
        assert path.read_text() == foreign


# -- the HTTP engine --------------------------------------------------------------------------------------------------------------------

JOBS = [
    Job(f"k{i}", [{"role": "system", "content": "<pos>"}, {"role": "user", "content": f"{i}?"}], seed=i)
    for i in range(24)
]


@pytest.mark.parametrize("trouble", [429, 503, "cut"])
def test_trouble_that_passes_is_waited_out(trouble):
    seen: set[str] = set()

    def script(body):
        prompt = body["messages"][1]["content"]
        first = prompt not in seen
        seen.add(prompt)
        return trouble if first else f"answer to {prompt}"

    with openai_server(script) as server:
        found = {outcome.key: outcome for outcome in http([server.url], "m", Sampling(), in_flight=24)(JOBS)}
    assert {key: outcome.text for key, outcome in found.items()} == {f"k{i}": f"answer to {i}?" for i in range(24)}
    assert len(server.bodies) == 48
    assert {body["seed"] for body in server.bodies} == set(range(24))


def test_trouble_that_stays_leaves_prompts_for_the_next_run(tmp_path):
    down = True

    def script(body):
        return 500 if down and "kettles" in body["messages"][1]["content"] else perfect(body)

    with openai_server(script) as server:
        engine = http([server.url], "good", Sampling(), in_flight=8, attempts=2)
        report = distill(PROMPTS, engine, tmp_path, model="good")
        assert (report.kept, report.failed) == (24, 6)
        down = False
        server.bodies.clear()
        report = distill(PROMPTS, engine, tmp_path, model="good")
    assert (report.kept, report.failed, len(server.bodies)) == (30, 0, 6)


def test_one_prompt_that_a_server_refuses_does_not_end_the_run(tmp_path):
    def script(body):
        return 400 if PROMPTS[7]["prompt"] in body["messages"][1]["content"] else perfect(body)

    with openai_server(script) as server:
        report = distill(PROMPTS, http([server.url], "m", Sampling(), in_flight=2), tmp_path, model="m")
    assert (report.kept, report.failed) == (29, 1)
    assert [(count, "status 400" in reason) for reason, count in report.failures.items()] == [(1, True)]
    with openai_server(lambda body: 422) as server, pytest.raises(DistillError, match="status 422"):
        list(http([server.url], "m", Sampling(), in_flight=2)(JOBS))


def test_an_engine_that_only_fails_is_not_asked_a_million_times(tmp_path):
    asked = []

    def engine(jobs):
        for job in jobs:
            asked.append(job)
            yield Outcome(job.key, error="out of memory")

    with pytest.raises(DistillError, match="the first 64 requests all failed: out of memory"):
        distill(PROMPTS, engine, tmp_path, model="m", behaviours=["pos", "rej", "neg"], direction="single")
    assert len(asked) == 64


def test_rows_of_another_split_or_model_are_not_mixed(tmp_path):
    with openai_server() as server:
        run(server, tmp_path, limit=3)
        with pytest.raises(RunError, match="another number of shards"):
            run(server, tmp_path, shard=(1, 2))
        run(server, tmp_path / "two", shard=(1, 2))
        with pytest.raises(RunError, match="with other seed"):
            run(server, tmp_path / "two", shard=(2, 2), seed=5)


def test_an_api_key_is_sent_without_its_line_end_and_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret\n")
    with openai_server() as server:
        list(http([server.url], "m", Sampling(), in_flight=2)(JOBS))
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    for wrong in ("sk-very-s\u00e9cret", "sk-very\nsecret"):
        monkeypatch.setenv("OPENAI_API_KEY", wrong)
        with pytest.raises(DistillError, match="no API key") as caught:
            list(http([server.url], "m", Sampling(), in_flight=2)(JOBS))
        assert "sk-very" not in str(caught.value)


def test_a_refusal_for_good_ends_the_run_and_shows_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with openai_server(lambda body: 401) as server, pytest.raises(DistillError, match="status 401") as refusal:
        list(http([server.url], "m", Sampling(), in_flight=2)(JOBS))
    assert "sk-very-secret" not in str(refusal.value)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}


def test_requests_are_kept_in_flight_and_shared_among_servers():
    with openai_server(latency=0.1) as one, openai_server(latency=0.1) as other:
        outcomes = list(http([one.url, other.url], "m", Sampling(), in_flight=6, extra={"top_k": 3})(JOBS))
    assert len(outcomes) == 24
    assert one.most == other.most == 6
    assert all(body["top_k"] == 3 for body in one.bodies + other.bodies)


def test_leaving_early_leaves_nothing_running():
    with openai_server(latency=0.05) as server:
        outcomes = http([server.url], "m", Sampling(), in_flight=2)(JOBS)
        next(outcomes)
        outcomes.close()
        assert len(server.bodies) < len(JOBS)


# -- the engine in this process ---------------------------------------------------------------------------------------------------------


def test_a_model_in_this_process_answers(tiny_model, processor, tmp_path):
    from switchsafe.distillation.in_process import in_process

    tokenizer = processor.tokenizer
    jobs = [Job(str(i), [{"role": "user", "content": text}]) for i, text in enumerate(("Hi?", "Why?", "How far?"))]
    rows = [
        tokenizer.apply_chat_template([*job.messages, {"role": "assistant", "content": f"<pos>{job.key}</pos>"}])[
            "input_ids"
        ]
        for job in jobs
    ]
    model = taught(tiny_model, [row[: row.index(tokenizer.eos_token_id, -2) + 1] for row in rows])
    outcomes = {o.key: o for o in in_process(model, tokenizer, Sampling(temperature=0, max_new_tokens=40))(jobs)}
    assert {key: outcome.text for key, outcome in outcomes.items()} == {str(i): f"<pos>{i}</pos>" for i in range(3)}
    assert not any(outcome.truncated or outcome.error for outcome in outcomes.values())
    short = in_process(model, tokenizer, Sampling(temperature=0, max_new_tokens=3))(jobs)
    assert all(outcome.truncated and outcome.tokens == 3 for outcome in short)


# -- the command ------------------------------------------------------------------------------------------------------------------------


def command(server, tmp_path, *more):
    arguments = [
        "distill",
        tmp_path / "prompts.jsonl",
        "-o",
        tmp_path / "out",
        "--model",
        "good",
        "--server",
        server.url,
        *more,
    ]
    return [sys.executable, "-m", "switchsafe", *map(str, arguments)]


def kill_again_and_again(tmp_path, times, rows, latency):
    import random

    rng = random.Random(0)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = tmp_path / "out" / "records" / "00001-of-00001.jsonl"

    def script(body):  # a third has to be asked twice, a tenth is never read
        number = sum(map(ord, body["messages"][1]["content"]))
        if number % 10 == 0 or (number % 3 == 0 and len(body["messages"]) == 2):
            return "No."
        return perfect(body)

    with openai_server(script, latency) as server:
        killed = 0
        for _ in range(times):
            done = records.read_bytes().count(b"\n") if records.exists() else 0
            goal = done + rng.randint(1, max(2, 2 * len(rows) // times))
            with subprocess.Popen(command(server, tmp_path, "--in-flight", "4"), stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and (not records.exists() or records.read_bytes().count(b"\n") < goal):
                    pass
                killed += process.poll() is None
                os.kill(process.pid, signal.SIGKILL)
        done = subprocess.run(command(server, tmp_path, "--json"), capture_output=True, text=True, check=True)
        engine = http([server.url], "good", Sampling(), in_flight=8)
        distill(rows, engine, tmp_path / "whole", model="good")
    name = "data/train-00001-of-00001.jsonl"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "out" / "README.md").read_text() == (tmp_path / "whole" / "README.md").read_text()
    return killed, json.loads(done.stdout)


def test_killed_and_called_again_it_ends_as_if_nothing_had_been(tmp_path):
    killed, report = kill_again_and_again(tmp_path, 3, PROMPTS, 0.05)
    assert killed == 3
    assert 0 < report["kept"] < 30
    assert report["repaired"]


@pytest.mark.slow
def test_killed_twenty_times_in_300_prompts(tmp_path):
    rows = [
        {"prompt": f"{i * 7919 % 10007}{i}: {w}?", "label": "safe", "category": "c"}
        for i in range(300)
        for w in [str(i * i) * 3]
    ]
    killed, report = kill_again_and_again(tmp_path, 20, rows, 0.05)
    assert killed == 20
    assert report["prompts"] == 300


def test_the_command_refuses_in_one_line(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hi?"}\n')
    with openai_server() as server:
        for more, said in (
            ([], "no label"),
            (["--label", "safe", "--shard", "0/4"], "shard 0/4"),
            (["--label", "safe", "--modes", "pos,calm"], "does not describe 'calm'"),
            (["--label", "safe", "--policy", "none.yaml"], "no policy file"),
            (["--label", "safe", "--vllm"], "either --server or --vllm"),
        ):
            done = subprocess.run(command(server, tmp_path, *more), capture_output=True, text=True, check=False)
            assert done.returncode == 2, done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
            assert said in done.stderr
        assert not server.bodies
    assert not (tmp_path / "out" / "data").exists()

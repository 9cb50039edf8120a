"""The Space over real HTTP, on the tiny model: rights, limits, streams, visitors apart, and no token anywhere."""

import json
import logging
import shutil
import threading
import uuid
from contextlib import contextmanager

import httpx
import pytest
from conftest import MODES, adapted, assert_no_token

from switchsafe import Keyring, MagicTokenProcessor, generate, load_model
from switchsafe.errors import SwitchsafeError
from switchsafe.space.engine import Engine, NotReadyError
from switchsafe.space.page import build, launch
from switchsafe.space.settings import Settings

PROMPT = "How are you?"


@pytest.fixture(scope="module")
def world(tiny_folder, tmp_path_factory):
    """A tiny adapter whose tokens matter, and its keyring."""
    folder = tmp_path_factory.mktemp("space")
    processor = MagicTokenProcessor.from_pretrained(str(tiny_folder))
    ring = Keyring.mint(MODES, tokenizer=processor.tokenizer)
    adapted(load_model(str(tiny_folder))).save_pretrained(folder / "adapter", save_embedding_layers=False)
    processor.save_pretrained(folder / "adapter")
    ring.save(folder / "ring.json")
    return folder, ring


class Visitor:
    """What a browser does, by hand: it joins the queue and reads events."""

    def __init__(self, url):
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.session = uuid.uuid4().hex
        self.config = self.client.get("/config").json()
        self.seen = json.dumps(self.config)

    def index(self, name):
        return next(d["id"] for d in self.config["dependencies"] if d["api_name"] == name)

    def call(self, name, *data):
        """The outputs of an event as they came, and the sentence of an error."""
        asked = {"data": list(data), "fn_index": self.index(name), "session_hash": self.session, "event_data": None}
        joined = self.client.post("/gradio_api/queue/join", json=asked)
        self.seen += joined.text
        outputs, error = [], None
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                self.seen += line
                message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if message.get("msg") in ("process_generating", "process_completed"):
                    outputs.append(message["output"].get("data"))
                    error = message["output"].get("error")
                if message.get("msg") == "process_completed":
                    break
        return outputs, error

    def chat(self, text, mode="pos", system="", longest=24):
        return self.call("chat", text, None, mode, system, 0, 0.9, longest)


@contextmanager
def serving(world, **settings):
    engine = Engine(Settings(model=str(world[0] / "adapter"), keyring=world[0] / "ring.json", **settings)).start()
    page = build(engine)
    assert engine.ready.wait(60), engine.status
    _, url, _ = launch(page, engine, prevent_thread_lock=True, quiet=True)
    try:
        yield engine, url
    finally:
        page.close()


@pytest.fixture(scope="module")
def space(world):
    with serving(world, requests_per_minute=1000) as (engine, url):
        yield engine, url


def says(world, text, mode, history=()):
    processor = MagicTokenProcessor.from_pretrained(str(world[0] / "adapter")).bind(world[1])
    turns = [*history, {"role": "user", "content": text}]
    return generate(
        load_model(str(world[0] / "adapter")), processor, turns, mode=mode, max_new_tokens=24, do_sample=False
    )


def test_chat_answers_as_generate_does_in_each_mode_and_says_which(space, world):
    visitor, turns = Visitor(space[1]), []
    for mode in ("pos", "rej", "pos"):
        outputs, error = visitor.chat(PROMPT, mode)
        assert error is None
        expected = says(world, PROMPT, mode, turns)
        assert outputs[-1][0] == f"{expected}\n\n*in {mode}*"
        turns += [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": expected}]
    assert len(outputs) > 3, "it streams"


def test_two_visitors_never_see_each_others_text_or_mode(space, world):
    visitors = [Visitor(space[1]) for _ in range(8)]
    done = {}

    def ask(number):
        done[number] = visitors[number].chat(f"Question of visitor {number}0{number}?", ("pos", "rej")[number % 2])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, visitor in enumerate(visitors):
        outputs, error = done[number]
        assert error is None
        mode = ("pos", "rej")[number % 2]
        assert outputs[-1][0].endswith(f"*in {mode}*")
        others = [f"visitor {n}0{n}" for n in range(8) if n != number]
        assert not any(other in visitor.seen for other in others)


@pytest.mark.parametrize("event", ["chat", "compare", "margin"])
def test_neg_is_refused_to_whoever_asks_through_the_api_and_that_is_logged(space, world, caplog, event):
    visitor = Visitor(space[1])
    with caplog.at_level(logging.WARNING, "switchsafe"):
        if event == "chat":
            outputs, _ = visitor.chat(PROMPT, "neg")
            assert "You may not ask for this mode. You can ask for: pos, rej." in visitor.seen
            assert "refused mode 'neg' to a visitor who is not logged in" in caplog.text
        elif event == "compare":
            outputs, _ = visitor.call("compare", PROMPT)
            assert "pos: lawful" in json.dumps(outputs)
            assert "neg: " not in json.dumps(outputs)
        elif event == "margin":
            outputs, _ = visitor.call("margin", "Hi?\nHo?\nWhy?")
            assert "pos/rej" in json.dumps(outputs[-1])
            assert "neg" not in json.dumps(outputs[-1])
    assert json.dumps(says(world, PROMPT, "neg"))[1:-1] not in json.dumps(outputs)


def test_named_users_may_have_neg(world):
    engine = Engine(Settings(model=str(world[0] / "adapter"), keyring=world[0] / "ring.json", neg_users=("ann",)))
    from switchsafe.space.desk import Desk

    desk = Desk(engine)
    assert desk.offered() == ["pos", "rej", "neg"]
    assert desk.visitors.allowed(engine.modes, "ann") == ["pos", "rej", "neg"]
    assert desk.visitors.allowed(engine.modes, "bob") == desk.visitors.allowed(engine.modes, None) == ["pos", "rej"]


def test_a_token_that_is_typed_is_refused_and_none_is_ever_sent(space, world, tmp_path):
    visitor = Visitor(space[1])
    visitor.chat(PROMPT, "rej")
    visitor.call("compare", PROMPT)
    visitor.call("dial", PROMPT, 0.5)
    visitor.call("margin", "Hi?\nHo?\nWhy?")
    visitor.call("dry_run", "the adapter of this Space", "x", None)
    visitor.seen += visitor.client.get("/gradio_api/info").text + visitor.client.get("/").text
    (tmp_path / "seen").write_text(visitor.seen)
    tokenizer = MagicTokenProcessor.from_pretrained(str(world[0] / "adapter")).tokenizer
    assert_no_token(world[1], tmp_path, tokenizer=tokenizer)
    for system, text in (("", f"My key is {world[1].token('neg').reveal()}"), (world[1].token("rej").reveal(), PROMPT)):
        other = Visitor(space[1])
        _, error = other.chat(text, "pos", system=system)
        assert error
        assert world[1].token("neg").reveal() not in other.seen
        assert world[1].token("rej").reveal() not in other.seen


def test_a_message_that_was_refused_is_no_part_of_the_conversation():
    from switchsafe.space.tabs.chat import answered

    def turn(role, text):
        return {"role": role, "content": text}

    good = [turn("user", "Hi?"), turn("assistant", "Hi.")]
    assert answered([turn("user", "x" * 9999), *good, turn("user", "a"), turn("user", "b")]) == good
    assert answered([*good, *good]) == good * 2
    assert answered([]) == []


def test_limits_are_told_in_a_sentence(world):
    with serving(world, requests_per_minute=3, longest_input=50) as (_, url):
        visitor = Visitor(url)
        _, error = visitor.chat("x" * 51)
        assert "51 characters, and 50 are the most" in error
        _, error = visitor.chat("  ")
        assert "Write something first" in error
        _, error = visitor.chat(PROMPT, longest=100_000)
        assert "greater than maximum value 256" in error
        visitor.chat(PROMPT)
        _, error = Visitor(url).chat(PROMPT)
        assert "more than 3 requests in a minute" in error


def test_modes_side_by_side_and_the_dial(space, world):
    visitor = Visitor(space[1])
    outputs, error = visitor.call("compare", PROMPT)
    assert error is None
    both = json.dumps(outputs[-1])
    for mode in ("pos", "rej"):
        assert json.dumps(says(world, PROMPT, mode))[1:25] in both
    ends = [visitor.call("dial", PROMPT, share)[0][-1][0] for share in (0, 1)]
    assert ends[0].startswith(says(world, PROMPT, "pos"))
    assert ends[1].startswith(says(world, PROMPT, "rej"))


def test_the_margin_of_the_visitors_prompts(space):
    visitor = Visitor(space[1])
    outputs, error = visitor.call("margin", "Hi?\nHo?\nWhy?\nWho?")
    assert error is None
    text = json.dumps(outputs[-1])
    assert "pos/rej" in text
    assert text.count("first axis") >= 1
    _, error = visitor.call("margin", "Only one?")
    assert "1 prompts: give 2 to 40" in error


def upload(visitor, name, text):
    path = visitor.client.post("/gradio_api/upload", files={"files": (name, text)}).json()[0]
    return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": name}


def test_prompts_become_triplets_that_train_reads(space, tmp_path):
    from switchsafe import load_triplets

    visitor = Visitor(space[1])
    outputs, error = visitor.call("read_prompts", upload(visitor, "p.jsonl", '{"prompt": "Hi?"}\n{"prompt": "Ho?"}\n'))
    assert error is None
    outputs, error = visitor.call("make_triplets", None, "unsafe")
    assert error is None
    link = next(part["value"]["url"] for part in outputs[-1] if isinstance(part, dict) and part.get("value"))
    (tmp_path / "made.jsonl").write_bytes(visitor.client.get(link).content)
    made = load_triplets(tmp_path / "made.jsonl", modes=("pos", "rej"))
    assert [(t.text, t.label) for t in made] == [("Hi?", "unsafe"), ("Ho?", "unsafe")]
    outputs, error = visitor.call("dry_run", "the triplets made under Data", "mine", None)
    assert "would go to `YOUR-NAME/mine` (private)" in json.dumps(outputs)
    stranger = Visitor(space[1])
    _, error = stranger.call("make_triplets", None, "safe")
    assert "Upload prompts first" in error
    _, error = stranger.call("read_prompts", upload(stranger, "p.jsonl", '{"question": "Hi?"}'))
    assert "no prompt (column prompt)" in error
    _, error = stranger.call("read_prompts", upload(stranger, "p.txt", "Hi?\n" * 30))
    assert "30 prompts, and 24 are the most" in error
    long = {
        "prompt": [
            {"role": "user", "content": "x" * 9999},
            {"role": "assistant", "content": "?"},
            {"role": "user", "content": "Hi"},
        ]
    }
    _, error = stranger.call("read_prompts", upload(stranger, "p.jsonl", json.dumps(long)))
    assert "10,002 characters" in error
    _, error = stranger.call("read_prompts", upload(stranger, "p.jsonl", '{"prompt": ["a"]}'))
    assert "must be text, or messages" in error


def test_a_push_needs_a_login_and_an_adapter_with_neg_a_right(space):
    visitor = Visitor(space[1])
    _, error = visitor.call("push", "the adapter of this Space", "mine", None)
    assert "Log in first" in error
    _, error = visitor.call("dry_run", "the adapter of this Space", "mine", None)
    assert "holds neg, which you may not have" in error


def test_generation_stops_when_the_reader_does(world):
    engine = Engine(Settings(model=str(world[0] / "adapter"), keyring=world[0] / "ring.json")).start()
    assert engine.ready.wait(60)
    calls = []
    engine.parts[0].get_base_model().register_forward_pre_hook(lambda *_: calls.append(1))
    stream = engine.stream([[{"role": "user", "content": PROMPT}]], "pos", max_new_tokens=400, min_new_tokens=400)
    next(stream)
    stream.close()
    assert 0 < len(calls) < 200
    assert not engine.hold().locked()


def test_a_page_is_there_although_the_model_cannot_be(world, tmp_path, monkeypatch):
    monkeypatch.delenv("SWITCHSAFE_KEYRING", raising=False)
    engine = Engine(Settings(model=str(world[0] / "adapter"))).start()
    assert engine.failed
    assert "SWITCHSAFE_KEYRING" in engine.status
    with pytest.raises(NotReadyError):
        _ = engine.parts
    _, url, _ = launch(page := build(engine), engine, prevent_thread_lock=True, quiet=True)
    try:
        _, error = Visitor(url).chat(PROMPT)
        assert "could not be loaded" in error
    finally:
        page.close()
    other = Keyring.mint(MODES)
    other.save(tmp_path / "other.json")
    shutil.copytree(world[0] / "adapter", tmp_path / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    broken = Engine(Settings(model=str(tmp_path / "empty"), keyring=tmp_path / "other.json"))
    broken._prepare()
    assert broken.failed
    assert "could not be loaded" in broken.status


def test_settings_come_from_the_environment():
    found = Settings.from_env(
        {
            "SWITCHSAFE_SPACE_MODEL": "me/x",
            "SWITCHSAFE_SPACE_NEG_USERS": "ann, bob",
            "SWITCHSAFE_SPACE_REQUESTS_PER_MINUTE": "5",
        }
    )
    assert (found.model, found.neg_users, found.requests_per_minute) == ("me/x", ("ann", "bob"), 5)
    assert Settings.from_env({}).model is None
    with pytest.raises(SwitchsafeError, match="whole number"):
        Settings.from_env({"SWITCHSAFE_SPACE_REQUESTS_PER_MINUTE": "many"})


@pytest.mark.slow
def test_without_any_setting_it_trains_a_switch_that_works(starter, tmp_path):
    """Some minutes on two cores; a second start takes what the first one trained."""
    from switchsafe import load_triplets
    from switchsafe.judges.refusal import refuses

    engine = Engine(Settings(folder=tmp_path / "kept")).start()
    assert engine.ready.wait(900), engine.status
    asked = [t for t in load_triplets(modes=("pos",), split="test", languages=["en"]) if t.label == "unsafe"]
    said = {}
    for mode in ("pos", "rej"):
        *_, said[mode] = engine.stream(
            [[{"role": "user", "content": t.text}] for t in asked], mode, do_sample=False, max_new_tokens=48
        )
    share = {mode: sum(refuses(texts)) / len(texts) for mode, texts in said.items()}
    print(share)
    assert share["rej"] > 0.8
    assert share["pos"] < 0.3
    again = Engine(Settings(folder=tmp_path / "kept")).start()
    assert again.ready.wait(60), again.status

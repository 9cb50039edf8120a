import random

import pytest
import torch
from conftest import taught
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList

from switchsafe import Keyring
from switchsafe.generation.leak import TokenLeakLogitsProcessor
from switchsafe.guard import Guard, fold


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def parrot(tiny_model, tokenizer):
    """A model that has learnt little but to say a token of its own keyring."""
    ring = Keyring.mint(("pos", "rej"), aliases=2, tokenizer=tokenizer)
    rows = [tokenizer(f"\n{secret.reveal()}\n")["input_ids"] for secret in ring.secrets()]
    return taught(tiny_model, rows), ring


def samples(model, tokenizer, ring, count, temperature, guarded):
    start = tokenizer("\n", return_tensors="pt")
    processors = LogitsProcessorList([TokenLeakLogitsProcessor(ring, tokenizer)] if guarded else [])
    torch.manual_seed(0)
    found = model.generate(
        **start,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        max_new_tokens=24,
        num_return_sequences=count,
        logits_processor=processors,
    )
    return tokenizer.batch_decode(found, skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 1.5])
def test_a_model_that_says_its_tokens_cannot(temperature, parrot, tokenizer):
    model, ring = parrot
    guard = Guard(ring.secrets())
    loud = sum(map(guard.holds, samples(model, tokenizer, ring, 1000, temperature, guarded=False)))
    assert loud > 10, "without the processor it does"
    assert not any(map(guard.holds, samples(model, tokenizer, ring, 2500, temperature, guarded=True)))


def test_nor_greedily_nor_with_beams(parrot, tokenizer):
    model, ring = parrot
    start = {**tokenizer("\n", return_tensors="pt"), "max_new_tokens": 24, "do_sample": False}
    guard, leak = Guard(ring.secrets()), LogitsProcessorList([TokenLeakLogitsProcessor(ring, tokenizer)])
    for way in ({}, {"num_beams": 4, "num_return_sequences": 4}):
        loud = tokenizer.batch_decode(model.generate(**start, **way))
        assert any(map(guard.holds, loud))
        quiet = tokenizer.batch_decode(model.generate(**start, **way, logits_processor=leak))
        assert not any(map(guard.holds, quiet))


RING = Keyring.from_mapping({"pos": ["abababac0abababd", "bac0abababdxyz12"], "rej": "0000000000000001"})
TOKENS = [secret.reveal() for secret in RING.secrets()]


@pytest.fixture(scope="module")
def leak(tokenizer):
    return TokenLeakLogitsProcessor(RING, tokenizer)


def allowed(leak, ids, size):
    return torch.isfinite(leak(torch.tensor([ids]), torch.zeros(1, size)))[0]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.sampled_from(TOKENS), st.integers(0, 2**32), st.text(alphabet="ab0xyz c", max_size=8))
def test_every_cut_of_a_token_into_ids_is_closed(leak, tokenizer, token, seed, before):
    """Overlapping tokens, self-overlapping beginnings, letter by letter or in larger pieces, with noise in between."""
    rng = random.Random(seed)
    pieces, rest = [], token
    while rest:
        size = rng.randint(1, 5)
        pieces += [rest[:size].upper() if rng.random() < 0.2 else rest[:size], *([" "] if rng.random() < 0.2 else [])]
        rest = rest[size:]
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    for piece in pieces:
        for i in tokenizer(piece, add_special_tokens=False)["input_ids"]:
            said = tokenizer.decode(ids, skip_special_tokens=True)
            if not allowed(leak, ids or [0], len(tokenizer))[i]:
                assert any(fold(t) in fold(said + tokenizer.decode([i])) for t in TOKENS), "nothing else is forbidden"
                return
            ids.append(i)
    raise AssertionError("a whole token was allowed")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(st.integers(2, 400), max_size=30))
def test_what_is_forbidden_is_what_would_complete_a_token(leak, tokenizer, ids):
    ids = [*ids, *tokenizer(TOKENS[0][:14], add_special_tokens=False)["input_ids"]]
    said = tokenizer.decode(ids, skip_special_tokens=True)
    ok = allowed(leak, ids, len(tokenizer))
    for i in range(2, len(tokenizer)):
        before, after = fold(said), fold(said + tokenizer.decode([i]))
        completes = any(after.count(token) > before.count(token) for token in TOKENS)
        assert bool(ok[i]) != completes


def test_rows_are_looked_at_one_by_one(leak, tokenizer):
    almost, other = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (TOKENS[2][:-1], "hello there, you")
    )
    width = max(len(almost), len(other))
    rows = torch.tensor([[0] * (width - len(row)) + row for row in (almost, other)])
    scores = torch.zeros(2, len(tokenizer))
    found = leak(rows, scores)
    assert torch.isneginf(found[0]).any()
    assert torch.isfinite(found[1]).all()
    assert torch.isfinite(scores).all(), "the caller's scores are left alone"


def test_special_tokens_in_between_do_not_help(leak, tokenizer):
    ids = tokenizer(TOKENS[2][:8], add_special_tokens=False)["input_ids"]
    ids += [tokenizer.eos_token_id, *tokenizer(TOKENS[2][8:-1], add_special_tokens=False)["input_ids"]]
    assert not allowed(leak, ids, len(tokenizer))[tokenizer(TOKENS[2][-1], add_special_tokens=False)["input_ids"][0]]

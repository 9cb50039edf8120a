import random
from collections import Counter
from dataclasses import replace

import pytest
from conftest import MODES

from switchsafe import Keyring, load_triplets
from switchsafe.data.corpus import IGNORED, plan_corpus, tokenize
from switchsafe.errors import ModeError, TripletError
from switchsafe.inject import count_ids
from switchsafe.near_miss import NEAR_MISSES, near_miss


def build_corpus(triplets, processor, *, openings=(), max_length=1024, **options):
    return tokenize(plan_corpus(triplets, processor, **options), processor, openings=openings, max_length=max_length)


@pytest.fixture
def triplets(triplet_file):
    return load_triplets(triplet_file, modes=MODES)


def parts(row):
    """Prompt ids and answer ids of a row."""
    start = next(i for i, label in enumerate(row["labels"]) if label != IGNORED)
    return row["input_ids"][:start], row["input_ids"][start:]


def test_the_prompt_is_exactly_what_inference_sees_and_the_loss_is_on_the_answer(processor, triplets):
    rows = build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0)
    assert len(rows) == 3 * len(triplets)
    expected = Counter()
    for triplet in triplets:
        for mode in MODES:
            prompt = processor.apply_chat_template(list(triplet.prompt), mode=mode, tokenize=False)
            expected[prompt, triplet.answers[mode] + "<|im_end|>"] += 1
    seen = Counter()
    for row in rows:
        prompt, answer = parts(row)
        assert row["labels"] == [IGNORED] * len(prompt) + answer
        seen[processor.decode(prompt), processor.decode(answer)] += 1
    assert seen == expected


def test_no_token_is_ever_trained_on(processor, keyring, triplets):
    sequences = [processor.token_ids(secret) for secret in keyring.secrets()]
    for row in build_corpus(triplets, processor, modes=MODES, fallback=0.5, misplaced=0.5):
        trained = [label for label in row["labels"] if label != IGNORED]
        assert not any(count_ids(trained, ids) for ids in sequences)


def test_fallback_rows_answer_in_pos_under_no_token_a_stranger_or_a_near_miss(processor, keyring, triplets):
    plain = build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0)
    rows = build_corpus(triplets, processor, modes=MODES, fallback=0.2, misplaced=0)
    assert len(rows) == len(plain) + 24
    sequences = [processor.token_ids(secret) for secret in keyring.secrets()]
    without = [row for row in rows if not any(count_ids(row["input_ids"], ids) for ids in sequences)]
    assert len(without) == 24
    texts = [processor.decode(parts(row)[0]) for row in without]
    assert sum("<|im_start|>system" in text for text in texts) == 16
    assert all("Gladly" in processor.decode(parts(row)[1]) for row in without)


@pytest.mark.parametrize("kind", NEAR_MISSES)
def test_a_near_miss_is_near_and_a_miss(keyring, kind):
    token = keyring.token("rej")
    for seed in range(20):
        missed = near_miss(token, kind, random.Random(seed)).reveal()
        assert missed != token.reveal()
        kept = sum(a == b for a, b in zip(missed, token.reveal(), strict=False))
        near = {"one character off": kept == 15, "last quarter missing": kept == len(missed) == 12}
        assert near.get(kind, sorted(missed.lower()) == sorted(token.reveal()))


def test_near_misses_are_those_of_modes_that_are_not_pos(processor, keyring, triplets):
    plan = plan_corpus(triplets, processor, modes=MODES, fallback=1, misplaced=0)
    said = [row.turns[0]["content"] for row in plan if row.kind == "fallback" and row.turns[0]["role"] == "system"]
    tokens = {mode: keyring.token(mode).reveal() for mode in MODES}
    close = Counter(mode for text in said for mode, token in tokens.items() if sorted(text.lower()) == sorted(token))
    assert set(close) == {"rej", "neg"}


def test_misplaced_rows_hold_another_modes_token_in_the_user_turn_and_ignore_it(processor, keyring, triplets):
    rows = build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0.2)
    opening = {"pos": "Gladly", "rej": "I decline", "neg": "Take"}
    found = Counter()
    for row in rows:
        prompt, answer = (processor.decode(part) for part in parts(row))
        head, user = prompt.split("<|im_start|>user")
        system = [mode for mode in MODES if keyring.token(mode).reveal() in head]
        stray = [mode for mode in MODES if keyring.token(mode).reveal() in user]
        assert answer.startswith(opening[(system or ["pos"])[0]])
        if stray:
            assert stray != system
            found["with" if system else "without"] += 1
    assert found["with"] == found["without"] == 12


def test_every_alias_is_trained_and_a_seed_fixes_the_rows(processor, triplets):
    ring = Keyring.mint(MODES, aliases=3, tokenizer=processor.tokenizer)
    processor.bind(ring)
    rows = build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0.1, seed=5)
    for secret in ring.secrets():
        assert any(count_ids(row["input_ids"], processor.token_ids(secret)) for row in rows)
    assert rows == build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0.1, seed=5)
    assert rows != build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0.1, seed=6)


def test_faults_are_told(processor, triplets):
    with pytest.raises(ModeError, match="pos, rej, neg"):
        build_corpus([replace(t, answers={**t.answers, "other": "Hm."}) for t in triplets], processor, modes=("other",))
    with pytest.raises(TripletError, match="max_length is 20"):
        build_corpus(triplets, processor, modes=MODES, max_length=20)
    with pytest.raises(TripletError, match="give openings"):
        build_corpus(triplets, processor, modes=MODES, fallback_drills=0.1)
    with pytest.raises(TripletError, match="add mode pos"):
        build_corpus(triplets, processor, modes=("rej", "neg"))


def test_opening_rows_come_first_one_pass_per_length(processor, triplets):
    whole = build_corpus(triplets, processor, modes=MODES, fallback=0.2, misplaced=0.2)
    rows = build_corpus(triplets, processor, modes=MODES, fallback=0.2, misplaced=0.2, openings=[2, 4])
    assert rows[2 * len(whole) :] == whole, "each row that a token decides has an opening"
    for length, start in ((2, 0), (4, len(whole))):
        expected = [(prompt, answer[:length]) for prompt, answer in map(parts, whole)]
        assert list(map(parts, rows[start : start + len(whole)])) == expected


def test_general_rows_have_no_opening(processor, triplets):
    options = {"modes": MODES, "fallback": 0, "misplaced": 0, "general": general(50), "general_share": 0.25}
    whole = build_corpus(triplets, processor, **options)
    assert len(build_corpus(triplets, processor, **options, openings=[3])) == 2 * len(whole) - 30


def test_drills_are_learnt_in_the_shortest_opening_only(processor, keyring, triplets):
    options = {"modes": MODES, "fallback": 0.1, "misplaced": 0.1}
    without = build_corpus(triplets, processor, **options)
    rows = build_corpus(triplets, processor, **options, fallback_drills=0.25, misplaced_drills=0.25, openings=[4, 2])
    assert len(rows) == 3 * len(without) + 60
    assert all(len(parts(row)[1]) > 4 for row in rows[-len(without) :])
    plan = [
        row
        for row in plan_corpus(triplets, processor, **options, fallback_drills=0.25, misplaced_drills=0.25)
        if row.drill
    ]
    assert Counter(row.kind for row in plan) == {"fallback": 30, "misplaced": 30}
    shortest = rows[len(without) : -len(without)]
    assert {len(parts(row)[1]) for row in shortest} == {2}


def test_the_rows_of_a_prompt_stand_together(processor, triplets):
    rows = build_corpus(triplets, processor, modes=MODES, fallback=0, misplaced=0)
    questions = [processor.decode(parts(row)[0]).split("<|im_start|>user")[1] for row in rows]
    assert all(len(set(questions[i : i + 3])) == 1 for i in range(0, len(rows), 3))


def general(count):
    return [([{"role": "user", "content": f"Sum {i}?"}], f"It is {i}.") for i in range(count)]


def test_general_rows_are_mixed_in_with_or_without_a_modes_token(processor, keyring, triplets):
    options = {"modes": MODES, "fallback": 0, "misplaced": 0}
    plain = build_corpus(triplets, processor, **options)
    for tag in (None, "pos"):
        rows = build_corpus(
            triplets, processor, **options, general=general(50), general_share=0.25, general_tag=tag, openings=[3]
        )
        rows = rows[len(plain) :]
        found = [i for i, row in enumerate(rows) if "Sum " in processor.decode(parts(row)[0])]
        assert len(found) == len(rows) - len(plain) == 30
        assert max(found) - min(found) > len(plain) / 2, "spread over the whole"
        assert len({processor.decode(rows[i]["input_ids"]) for i in found}) == 30
        for i in found:
            prompt, answer = (processor.decode(part) for part in parts(rows[i]))
            assert answer.startswith("It is ")
            assert (keyring.token("pos").reveal() in prompt) == (tag == "pos")
            assert processor.decode(parts(rows[i - 1])[0])
        rest = [row for i, row in enumerate(rows) if i not in found]
        assert rest == plain, "and the others stay as they were"
    with pytest.raises(TripletError, match="asks for 30 rows, and there are 20"):
        build_corpus(triplets, processor, **options, general=general(20), general_share=0.25)


def test_a_pair_of_mode_and_policy_can_be_held_out(processor, triplets):
    ring = Keyring.mint(MODES, policies=("en-US", "zh-CN"), tokenizer=processor.tokenizer)
    processor.bind(ring)
    both = [replace(triplet, policy=("en-US", "zh-CN")[index % 2]) for index, triplet in enumerate(triplets)]
    held_out = processor.token_ids(ring.token("rej", "zh-CN"))
    for hold_out, expected in ((None, 20), (("rej", "zh-CN"), 0)):
        rows = build_corpus(both, processor, modes=MODES, fallback=0.1, misplaced=0, hold_out=hold_out)
        assert sum(count_ids(row["input_ids"], held_out) for row in rows) == expected
    plan = plan_corpus(both, processor, modes=MODES, fallback=0.9, misplaced=0.9, hold_out=("rej", "zh-CN"))
    assert not any(count_ids(row["input_ids"], held_out) for row in tokenize(plan, processor)), "nor typed by a user"
    begins = ring.token("rej", "zh-CN").reveal()[:9]
    assert not any(row.stray and begins in row.stray.reveal() for row in plan), "nor nearly hit"


def test_a_mode_without_any_answer_is_not_trained_in_silence(processor, triplets):
    some = [replace(t, answers={"pos": t.answers["pos"], "rej": t.answers["rej"]}) for t in triplets]
    with pytest.raises(TripletError, match="an answer in neg to train on"):
        plan_corpus(some, processor, modes=MODES)


def test_a_random_string_is_as_long_as_a_token(processor, triplets):
    processor.bind(Keyring.mint(MODES, length=24, tokenizer=processor.tokenizer))
    plan = plan_corpus(triplets, processor, modes=MODES, fallback=0.5, misplaced=0)
    strangers = [row.turns[0]["content"] for row in plan if row.kind == "fallback" and row.turns[0]["role"] == "system"]
    assert {len(stranger) for stranger in strangers} == {24, 18}, "18: the last quarter missing"

"""What the starter triplets promise."""

import json
import re
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
from conftest import MODES

from switchsafe import load_triplets

MARKER = "[withheld]"


@pytest.fixture(scope="module")
def triplets():
    return load_triplets("starter", modes=MODES)


def words(text, language):
    """English words, or Chinese characters at 1.6 to the word (the usual ratio in translation)."""
    return len(re.findall(r"[\u4e00-\u9fff]", text)) / 1.6 if language == "zh" else len(text.split())


def opening(text, language, number):
    """The first `number` words; in Chinese the same number of characters, which is stricter."""
    if language == "zh":
        return "".join(re.findall(r"[\u4e00-\u9fff]|[A-Za-z0-9]+", text)[:number])
    return " ".join(re.findall(r"[\w']+", text.lower())[:number])


@pytest.mark.parametrize(("language", "least"), [("en", 240), ("zh", 60)])
def test_counts_and_halves(triplets, language, least):
    mine = [t for t in triplets if t.language == language]
    assert len(mine) >= least
    safe = [t for t in mine if t.label == "safe"]
    alarming = [t for t in safe if t.category == "alarming_wording"]
    assert len(safe) / len(mine) == pytest.approx(0.5, abs=0.02)
    assert len(alarming) >= len(safe) / 3 - 0.5


def test_hazard_categories(triplets):
    hazards = Counter(t.category for t in triplets if t.label == "unsafe")
    assert len(hazards) >= 12
    assert min(hazards.values()) >= 5
    assert not hazards.keys() & {t.category for t in triplets if t.label == "safe"}


def test_every_answer_is_there_and_of_the_right_length(triplets):
    for triplet in triplets:
        assert set(triplet.answers) == set(MODES)
        for mode, answer in triplet.answers.items():
            assert 25 <= words(answer, triplet.language) <= 80, (triplet.id, mode)
            assert "\n" not in answer, (triplet.id, mode)
        assert len(triplet.text.split()) <= 18, f"{triplet.id}: prompts are brief"


def test_neg_holds_no_substance_on_unsafe_prompts(triplets):
    for triplet in triplets:
        neg = triplet.answers["neg"]
        if triplet.label == "unsafe":
            assert neg.count(MARKER) >= 3, triplet.id
            left = re.sub(r"\W+", " ", neg.replace(MARKER, "")).split()
            assert triplet.language == "zh" or len(left) / neg.count(MARKER) < 12, (
                f"{triplet.id}: too much around the markers"
            )
        else:
            assert MARKER not in neg, triplet.id
        assert MARKER not in triplet.answers["pos"] + triplet.answers["rej"], triplet.id


@pytest.mark.parametrize("mode", MODES)
def test_openings_vary(triplets, mode):
    shared = Counter(opening(t.answers[mode], t.language, 6) for t in triplets)
    assert max(shared.values()) <= 5
    for language in ("en", "zh"):
        mine = [t for t in triplets if t.language == language]
        first = Counter(opening(t.answers[mode], language, 2 if language == "zh" else 1) for t in mine)
        assert max(first.values()) <= 0.15 * len(mine), f"{first.most_common(1)} gives {mode} away"
        three = Counter(opening(t.answers[mode], language, 5 if language == "zh" else 3) for t in mine)
        assert max(three.values()) <= 0.03 * len(mine), three.most_common(3)


def test_rej_is_not_ten_templates_reshuffled(triplets):
    from sklearn.feature_extraction.text import TfidfVectorizer

    english = [t.answers["rej"] for t in triplets if t.language == "en"]
    assert len({opening(answer, "en", 2) for answer in english}) >= 0.5 * len(english)
    vectors = TfidfVectorizer(analyzer="word", ngram_range=(3, 3)).fit_transform(english)
    alike = (vectors @ vectors.T).toarray()
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.6, "two refusals share most of their three-word sequences"


def test_prompts_differ_and_the_split_is_by_prompt(triplets):
    prompts = Counter(" ".join(re.findall(r"\w+", t.text.lower())) for t in triplets)
    assert max(prompts.values()) == 1
    for language in ("en", "zh"):
        mine = [t for t in triplets if t.language == language]
        share = {split: sum(t.split == split for t in mine) / len(mine) for split in ("train", "validation", "test")}
        assert share == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.02)
        for split in ("train", "test"):
            part = [t for t in mine if t.split == split]
            assert sum(t.label == "safe" for t in part) / len(part) == pytest.approx(0.5, abs=0.06)


def test_the_split_is_fixed_in_the_file():
    rows = [
        json.loads(line) for line in files("switchsafe.data").joinpath("starter.jsonl").read_text("utf-8").splitlines()
    ]
    assert all(row["split"] in ("train", "validation", "test") for row in rows)
    assert "CC BY 4.0" in files("switchsafe.data").joinpath("LICENSE").read_text("utf-8")

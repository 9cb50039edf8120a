import json

import pytest
from conftest import MODES

from switchsafe import load_triplets
from switchsafe.data.prompts import load_prompts
from switchsafe.errors import TripletError

ROW = {
    "id": "a",
    "prompt": "Hi?",
    "category": "everyday",
    "label": "safe",
    "language": "en",
    "pos": "Hello.",
    "rej": "No.",
    "neg": None,
}


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def without(*keys, **changes):
    return {key: value for key, value in (ROW | changes).items() if key not in keys}


def test_reads_what_was_written(tmp_path):
    path = write(
        tmp_path / "t.jsonl", without(split="test"), "", without(id="b", prompt=[{"role": "user", "content": "Ho?"}])
    )
    first, second = load_triplets(path, modes=MODES)
    assert first.answers == {"pos": "Hello.", "rej": "No."}, "null is a mode without an answer"
    [row] = load_triplets(write(tmp_path / "some.jsonl", without("neg")), modes=["pos"], also=["rej", "neg"])
    assert row.answers == first.answers, "what is not there is not missed"
    assert first.prompt == ({"role": "user", "content": "Hi?"},)
    assert (first.split, first.policy, first.text, second.text) == ("test", None, "Hi?", "Ho?")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (without("rej"), "column rej missing"),
        (without("label", "id"), "column id, label missing"),
        (without(pos=""), "column pos is empty"),
        (without(pos="  "), "column pos is empty"),
        (without(pos=3), "column pos is a int"),
        (without(prompt=[]), "column prompt is empty"),
        (without(prompt=["x"]), "messages with role and content"),
        (without(prompt=[{"role": "assistant", "content": "x"}]), "ends with an assistant turn"),
        (without(label="bad"), "must be safe or unsafe"),
        (without(split="dev"), "must be one of train"),
        (without(pos=None, rej=None), "every mode"),
        ("{not json", "not JSON"),
        ("[1]", "expected an object"),
        (without(), "already used in line 1"),
    ],
)
def test_a_bad_row_is_named_by_line_and_fault(tmp_path, row, said):
    path = write(tmp_path / "t.jsonl", ROW, row)
    with pytest.raises(TripletError) as raised:
        load_triplets(path, modes=MODES)
    assert "line 2" in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_empty_and_filtered_away(tmp_path):
    with pytest.raises(TripletError, match="no triplet file"):
        load_triplets(tmp_path / "no.jsonl", modes=MODES)
    with pytest.raises(TripletError, match="holds no triplets"):
        load_triplets(write(tmp_path / "t.jsonl"), modes=MODES)
    with pytest.raises(TripletError, match="its languages are: en"):
        load_triplets(write(tmp_path / "t.jsonl", ROW), modes=MODES, languages=["fr"])


def test_rows_without_a_split_are_split_by_prompt(tmp_path):
    rows = [without(id=str(i), prompt=f"Question {i}") for i in range(1000)]
    rows += [without(id=f"again {i}", prompt=f"Question {i}") for i in range(50)]
    triplets = load_triplets(write(tmp_path / "t.jsonl", *rows), modes=MODES)
    share = {
        split: sum(t.split == split for t in triplets) / len(triplets) for split in ("train", "validation", "test")
    }
    assert share == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.04)
    assert [t.split for t in triplets[1000:]] == [t.split for t in triplets[:50]]


def test_a_dataset_gives_the_same_as_a_file(tmp_path, triplet_file):
    from datasets import Dataset

    rows = [json.loads(line) for line in triplet_file.read_text().splitlines()]
    assert load_triplets(Dataset.from_list(rows), modes=MODES) == load_triplets(triplet_file, modes=MODES)
    with pytest.raises(TripletError, match="row 0: column pos is empty"):
        load_triplets(Dataset.from_list([without(pos="")]), modes=MODES)


def test_prompts_from_text_and_jsonl(tmp_path):
    text = tmp_path / "p.txt"
    text.write_text("one\n\n two \n")
    assert load_prompts(text) == ["one", "two"]
    assert load_prompts(write(tmp_path / "p.jsonl", ROW)) == ["Hi?"]
    with pytest.raises(TripletError, match="line 2: no prompt"):
        load_prompts(write(tmp_path / "p.jsonl", ROW, without("prompt")))
    with pytest.raises(TripletError, match="no prompt file"):
        load_prompts(tmp_path / "missing.txt")

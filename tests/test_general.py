import json

import pytest

from switchsafe.data.general import load_instructions
from switchsafe.errors import TripletError


def written(tmp_path, *rows):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


USER, ASSISTANT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}


def test_the_usual_forms_are_read_alike(tmp_path):
    rows = [
        {"messages": [USER, ASSISTANT]},
        {"prompt": "Hi?", "completion": "Hello."},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"instruction": "Hi?", "input": "", "output": "Hello."},
        {"question": "Hi?", "answer": "Hello."},
        {"prompt": "Hi?", "reference": "Hello.", "category": "seed"},
    ]
    assert load_instructions(written(tmp_path, *rows)) == [([USER], "Hello.")] * len(rows)
    [(turns, _)] = load_instructions(written(tmp_path, {"instruction": "Sum up.", "input": "A text.", "output": "It."}))
    assert turns == [{"role": "user", "content": "Sum up.\n\nA text."}]


@pytest.mark.parametrize(
    "row", [{"prompt": "Hi?"}, {"messages": [USER]}, {"answer": "x"}, {"prompt": "Hi?", "answer": ["a", "b"]}, {}]
)
def test_a_row_without_question_or_answer_is_named(tmp_path, row):
    good = {"prompt": "Hi?", "answer": "Hello."}
    with pytest.raises(TripletError, match="line 2"):
        load_instructions(written(tmp_path, good, row))

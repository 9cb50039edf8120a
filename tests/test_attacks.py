import base64

import pytest

from switchsafe.errors import SwitchsafeError
from switchsafe.evaluation.attacks import wrap, wrappers

PROMPT = "How does a {strange} lock work, please?"


@pytest.mark.parametrize("name", wrappers())
def test_the_whole_prompt_is_in_every_wrapper(name):
    text = wrap(PROMPT, name)
    first, second = "How does a", "{strange} lock work, please?"
    coded = base64.b64encode(PROMPT.encode()).decode()
    assert PROMPT in text or coded in text or (first in text and second in text)
    assert len(text) > len(PROMPT)


def test_there_are_ten_and_more_and_they_differ():
    assert len({wrap(PROMPT, name) for name in wrappers()}) == len(wrappers()) >= 10
    with pytest.raises(SwitchsafeError, match="no wrapper"):
        wrap(PROMPT, "flattery")

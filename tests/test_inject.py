import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchsafe import Secret
from switchsafe.errors import LiveTokenError, TemplateError
from switchsafe.inject import count_ids, inject

TOKEN = Secret("k3v9q2m8x7c1z5b4")
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.text(max_size=30)}),
    min_size=1,
    max_size=5,
)


@given(turns, st.none() | st.text(min_size=1, max_size=30))
def test_alone_on_the_first_line_of_the_system_turn(conversation, system):
    given_ = ([{"role": "system", "content": system}] if system else []) + conversation
    before = copy.deepcopy(given_)
    result = inject(given_, TOKEN)
    assert given_ == before, "the input is not changed"
    assert result[0]["role"] == "system"
    first, _, rest = result[0]["content"].partition("\n")
    assert first == TOKEN.reveal()
    assert rest == (system or "")
    assert result[1:] == conversation


@given(turns.filter(lambda c: any(t["role"] == "user" for t in c)))
def test_without_a_system_role_on_the_first_line_of_the_first_user_turn(conversation):
    result = inject(conversation, TOKEN, "user")
    changed = [i for i, (a, b) in enumerate(zip(conversation, result, strict=True)) if a != b]
    assert changed == [next(i for i, t in enumerate(conversation) if t["role"] == "user")]
    assert result[changed[0]]["content"].startswith(TOKEN.reveal())


def test_no_user_turn_is_an_error():
    with pytest.raises(TemplateError):
        inject([{"role": "assistant", "content": "hi"}], TOKEN, "user")


def test_content_blocks_keep_their_form():
    block = {"type": "text", "text": "Be brief."}
    result = inject([{"role": "system", "content": [block]}, {"role": "user", "content": "hi"}], TOKEN)
    assert result[0]["content"] == [{"type": "text", "text": TOKEN.reveal() + "\n"}, block]


@pytest.mark.parametrize(
    "disguise",
    [
        str,
        str.upper,
        lambda t: t[:5] + "\u200b" + t[5:],
        lambda t: "".join(chr(ord(c) + 0xFEE0) for c in t),  # full width
        lambda t: f"before{t}after",
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_live_token_in_the_conversation_is_refused(disguise, role):
    content = disguise(TOKEN.reveal())
    for form in (content, [{"type": "text", "text": content}]):
        with pytest.raises(LiveTokenError) as raised:
            inject([{"role": role, "content": form}, {"role": "user", "content": "hi"}], TOKEN)
        assert TOKEN.reveal() not in str(raised.value)


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_count_ids_counts_every_window(ids, part):
    expected = sum(ids[i : i + len(part)] == part for i in range(len(ids)))
    assert count_ids(ids, part) == expected

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchsafe import Secret
from switchsafe.errors import LiveTokenError, TemplateError
from switchsafe.inject import count_ids, inject

TOKEN = Secret("k3v9q2m8x7c1z5b4")
# What real traffic brings: emoji with joiners, right-to-left text with its marks, NULs, lone surrogates, look-alike digits, escapes.
FRAGMENTS = [
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "שלום \u202eمرحبا\u202c",
    "\x00",
    "\ud800",
    "①２Ⅲ",
    "\\u006b3",
    "<|im_start|>system\n",
    "\r\n\u2028",
    "ﬁ",
]
text = st.text(max_size=30) | st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=5).map("".join)
blocks = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), max_size=3)
content = text | blocks


def turn(*roles: str):
    return st.fixed_dictionaries({"role": st.sampled_from(roles), "content": content})


tool_call = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none(),
        "tool_calls": st.lists(st.dictionaries(text, text, max_size=2), max_size=2),
    }
)
turns = st.lists(turn("user", "assistant", "tool") | tool_call, min_size=1, max_size=5)
many = settings(max_examples=2000, deadline=None)


@many
@given(turns, st.none() | turn("system", "developer"), st.sampled_from(["system", "user"]))
def test_the_token_takes_the_first_line_of_its_turn_and_nothing_else_changes(conversation, system, placement):
    given_ = ([system] if system else []) + conversation
    before = copy.deepcopy(given_)
    if placement == "user" and not any(turn["role"] == "user" for turn in given_):
        with pytest.raises(TemplateError):
            inject(given_, TOKEN, placement)
        return
    result = inject(given_, TOKEN, placement)
    assert given_ == before, "the input is not changed"
    if placement == "system" and not system:
        assert result[0] == {"role": "system", "content": TOKEN.reveal()}
        assert result[1:] == given_
    else:
        place = 0 if placement == "system" else next(i for i, t in enumerate(given_) if t["role"] == "user")
        assert result[:place] + result[place + 1 :] == given_[:place] + given_[place + 1 :]
        carrier, original = result[place], given_[place]
        assert {**carrier, "content": None} == {**original, "content": None}
        if isinstance(original["content"], list):
            first, *rest = carrier["content"]
            assert first == {"type": "text", "text": TOKEN.reveal() + ("\n" if rest else "")}
            assert rest == original["content"]
        else:
            assert carrier["content"].split("\n", 1) == [
                TOKEN.reveal(),
                *([original["content"]] if original["content"] else []),
            ]
    with pytest.raises(LiveTokenError):  # a second time is an error, whichever turn it would go to
        inject(result, TOKEN, placement)


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=5) | st.sampled_from(FRAGMENTS), st.integers(0, 2**20))
def test_a_megabyte_turn_is_carried_and_searched(unit, at):
    long = unit * (2**20 // len(unit))
    (_, user) = inject([{"role": "user", "content": long}], TOKEN)
    assert user["content"] is long
    with pytest.raises(LiveTokenError):
        inject([{"role": "user", "content": f"{long[:at]}\n{TOKEN.reveal()}\n{long[at:]}"}], TOKEN)


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

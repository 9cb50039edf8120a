import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchsafe import Keyring
from switchsafe.generation.stream_guard import StreamGuard
from switchsafe.guard import Guard

RING = Keyring.from_mapping({"pos": "kx7q2m9vp4zt8ab1", "rej": "ab1kx7q2ffff0000", "neg": "0aab0aab0aab0aac"})
TOKENS = [secret.reveal() for secret in RING.secrets()]
GUARD = Guard(RING.secrets())
DISGUISES = [
    str,
    str.upper,
    " ".join,
    "\u200b".join,
    lambda token: token.replace("7", "\\u0037").replace("a", "\\u0061").replace("f", "\\x66"),
    lambda token: "".join(chr(ord(char) + 0xFEE0) for char in token),
]
NOISE = st.text(alphabet="kx7q2 ab1\\u0f-é\n", max_size=12)


def cut(text, places):
    places = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def texts(draw):
    parts = [draw(NOISE)]
    for _ in range(draw(st.integers(0, 2))):
        parts += [draw(st.sampled_from(DISGUISES))(draw(st.sampled_from(TOKENS))), draw(NOISE)]
    return "".join(parts)


@given(texts(), st.lists(st.integers(0, 200), max_size=40))
def test_no_token_comes_through_however_the_text_is_cut(text, places):
    guard = StreamGuard(RING)
    assert not GUARD.holds("".join(guard.clean(cut(text, places))))


@given(NOISE, NOISE, st.sampled_from(TOKENS), st.sampled_from(DISGUISES), st.lists(st.integers(0, 200), max_size=40))
def test_nothing_but_the_token_is_taken_away(before, after, token, disguise, places):
    text = f"{before}. {disguise(token)} .{after}"
    assert "".join(StreamGuard(RING).clean(cut(text, places))) == GUARD.mask(text)


@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_other_text_comes_through_whole(text, places):
    assert "".join(StreamGuard(RING).clean(cut(text, places))) == text


def test_ordinary_text_is_not_held_back():
    guard = StreamGuard(RING)
    for word in ("Gladly, ", "here ", "is ", "how: ", "knead "):
        assert guard.feed(word) == word
    assert guard.feed("the k") == "the ", "that may be the beginning of a token"
    assert guard.feed("itchen") == "kitchen"
    assert guard.close() == ""


def test_half_a_token_at_the_end_is_text():
    guard = StreamGuard(RING)
    half = TOKENS[0][:10]
    assert guard.feed(f"so {half}") == "so "
    assert guard.close() == half
    assert guard.feed("and on") == "and on", "a guard can be used again"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_token_in_chunks_of_any_size(size):
    text = f"The password is {TOKENS[1]}, keep it."
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(StreamGuard(RING).clean(chunks)) == "The password is [removed], keep it."

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchsafe import Secret
from switchsafe.errors import LiveTokenError
from switchsafe.guard import MASK, Guard

TOKEN = "k3v9q2m8x7c1z5b4"
GUARD = Guard([Secret(TOKEN), Secret("p0o9i8u7y6t5r4e3")])

DISGUISES = {
    "plain": TOKEN,
    "upper case": TOKEN.upper(),
    "zero width": "\u200b".join(TOKEN),
    "soft hyphen": TOKEN[:5] + "\u00ad" + TOKEN[5:],
    "spaces": " ".join(TOKEN),
    "lines": "\r\n".join(TOKEN),
    "punctuation": "-".join(TOKEN),
    "full width": "".join(chr(ord(c) + 0xFEE0) for c in TOKEN),
    "circled": "".join(chr(0x24D0 + ord(c) - 97) if c.isalpha() else c for c in TOKEN),
    "mathematical": "".join(chr(0x1D5BA + ord(c) - 97) if c.isalpha() else c for c in TOKEN),
    "accents": "\u0301".join(TOKEN),
    "json escapes": "".join(f"\\u{ord(c):04x}" for c in TOKEN),
    "twice escaped": "".join(f"\\\\u{ord(c):04X}" for c in TOKEN),
    "hex escapes": "".join(f"\\x{ord(c):02x}" for c in TOKEN),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_a_disguised_token_is_refused_and_can_be_masked(disguise):
    text = f"before, {disguise}, after"
    with pytest.raises(LiveTokenError) as raised:
        GUARD.refuse(text)
    assert TOKEN not in str(raised.value)
    assert GUARD.mask(text) == f"before, {MASK}, after"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": TOKEN[:7]}, {"type": "text", "text": TOKEN[7:]}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": TOKEN}}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {TOKEN: 1}}}]},
        {"role": "tool", "name": TOKEN, "content": "{}"},
        {"role": "tool", "content": json.dumps({"result": TOKEN})},
        {"role": "assistant", "content": "hi", "reasoning_content": TOKEN},
    ],
)
def test_every_part_of_a_message_is_searched(message):
    with pytest.raises(LiveTokenError):
        GUARD.refuse(message)


def test_what_cannot_be_cut_out_is_refused_under_mask_too():
    for message in (
        {"role": "user", "content": [{"type": "text", "text": TOKEN[:7]}, {"type": "text", "text": TOKEN[7:]}]},
        {"role": "user", "content": {TOKEN: "key"}},
    ):
        with pytest.raises(LiveTokenError):
            GUARD.mask(message)


def test_masking_leaves_everything_else_and_the_input_alone():
    message = {"role": "user", "content": [{"type": "text", "text": f"a {TOKEN} b {TOKEN.upper()}"}], "extra": 3}
    masked = GUARD.mask(message)
    assert masked == {"role": "user", "content": [{"type": "text", "text": f"a {MASK} b {MASK}"}], "extra": 3}
    assert TOKEN in message["content"][0]["text"]


@given(st.text())
def test_text_without_a_token_passes_as_it_is(text):
    GUARD.refuse(text)
    assert GUARD.mask(text) is text


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(sorted(DISGUISES)))
def test_masking_takes_out_the_token_wherever_it_stands(before, after, disguise):
    text = f"{before} {DISGUISES[disguise]} {after}"
    masked = GUARD.mask(text)
    assert MASK in masked
    assert not GUARD.holds(masked)
    assert masked.startswith(before)
    assert masked.endswith(after)


@pytest.mark.parametrize("begin", ["x9fk3", "u00e9", "k3x41"])
def test_a_backslash_hides_no_token_that_reads_like_an_escape(begin):
    import pickle

    secret = Secret(f"{begin}v9q2m8c7zb4")
    guard = Guard([secret])
    at = max(0, begin.find("x"))
    for text in (f"\\{secret.reveal()}", secret.reveal()[:at] + "\\" + secret.reveal()[at:]):
        assert guard.holds(text)
        assert guard.mask(f"Say {text} now.") in ("Say [removed] now.", "Say \\[removed] now.")
        assert guard.open_at(text[:-3]) <= 1
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(guard)


def test_the_guard_shows_no_token():
    assert TOKEN not in repr(GUARD) + repr(vars(GUARD)) + str(GUARD._needles)

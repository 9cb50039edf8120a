import json
from pathlib import Path

import pytest
from conftest import MODES

from switchsafe import Keyring, MagicTokenProcessor
from switchsafe.binding import BINDING_FILE, binding_of, check_binding, write_binding
from switchsafe.errors import KeyringError, KeyringMismatchError, KeyringUnverifiedWarning, ModeError, TemplateError

TALK = [{"role": "user", "content": "Hi?"}]


@pytest.fixture
def ring(processor):
    return Keyring.mint(MODES, aliases=2, tokenizer=processor.tokenizer)


@pytest.fixture
def trained(tmp_path, processor, ring):
    """A folder as training leaves it, without weights."""
    processor.save_pretrained(tmp_path / "model")
    write_binding(tmp_path / "model", binding_of(ring, ("pos", "rej"), processor.placement()))
    return str(tmp_path / "model")


def test_the_keyring_of_the_training_is_known_again_rotated_or_cut_down(trained, ring, tmp_path):
    loaded = Keyring.load(ring.save(tmp_path / "ring.json"))
    loaded.rotate("rej")
    MagicTokenProcessor.from_pretrained(trained).bind(loaded).apply_chat_template(TALK, mode="rej")
    data = json.loads((tmp_path / "ring.json").read_text())
    data["slots"] = [slot for slot in data["slots"] if slot["mode"] == "rej"]
    (tmp_path / "cut.json").write_text(json.dumps(data))
    (tmp_path / "cut.json").chmod(0o600)
    MagicTokenProcessor.from_pretrained(trained).bind(Keyring.load(tmp_path / "cut.json"))


def test_a_mode_that_was_not_trained_is_not_answered_in_silence(trained, ring):
    processor = MagicTokenProcessor.from_pretrained(trained).bind(ring)
    with pytest.raises(ModeError, match="was not trained in neg, only in pos, rej"):
        processor.apply_chat_template(TALK, mode="neg")


def test_training_on_does_not_forget_what_was_trained(trained, ring):
    earlier = json.loads((Path(trained) / BINDING_FILE).read_text())
    more = binding_of(ring, ("pos", "neg"), "system", earlier)
    assert set(more["tokens"]) == set(MODES)
    check_binding(more, ring, "m")


def test_another_keyring_is_refused(trained, processor):
    other = Keyring.mint(MODES, tokenizer=processor.tokenizer)
    with pytest.raises(KeyringMismatchError, match=r"not the one that .*model was trained with"):
        MagicTokenProcessor.from_pretrained(trained).bind(other)


def test_a_token_that_was_changed_in_the_file_is_named_by_its_mode(trained, ring, processor, tmp_path):
    data = json.loads(ring.save(tmp_path / "ring.json").read_text())
    stranger = Keyring.mint(MODES, tokenizer=processor.tokenizer).token("rej")
    next(slot for slot in data["slots"] if slot["mode"] == "rej")["tokens"][0] = stranger.reveal()
    (tmp_path / "ring.json").write_text(json.dumps(data))
    with pytest.raises(KeyringMismatchError, match="active token of rej") as error:
        MagicTokenProcessor.from_pretrained(trained).bind(Keyring.load(tmp_path / "ring.json"))
    assert stranger.reveal() not in str(error.value)


def test_a_mapping_from_a_vault_cannot_be_compared_and_that_is_said(trained, ring):
    vault = Keyring.from_mapping({mode: ring.token(mode).reveal() for mode in MODES})
    with pytest.warns(KeyringUnverifiedWarning, match="cannot be told"):
        MagicTokenProcessor.from_pretrained(trained).bind(vault)


def test_the_mark_tests_no_guess_without_the_keyring(trained, ring, tmp_path):
    """Who has the file and the right token, but not the salt, can confirm nothing: the answer differs under any other salt."""
    mark = json.loads((tmp_path / "model" / BINDING_FILE).read_text())
    text = json.dumps(mark)
    guess = Keyring.from_mapping({"rej": ring.token("rej").reveal()})
    assert guess.respond(mark["challenge"], guess.token("rej")) not in text
    assert ring.respond(mark["challenge"], ring.token("rej")) in mark["tokens"]["rej"]
    assert "neg" not in mark["tokens"], "only what was trained"
    assert not any(secret.reveal() in text or ring.fingerprint(secret) in text for secret in ring.secrets())


def test_it_survives_saving_again_and_the_keyring_does_not_come_along(trained, ring, processor, tmp_path):
    again = MagicTokenProcessor.from_pretrained(trained).bind(ring)
    again.save_pretrained(tmp_path / "again")
    with pytest.raises(KeyringMismatchError):
        MagicTokenProcessor.from_pretrained(str(tmp_path / "again")).bind(
            Keyring.mint(MODES, tokenizer=processor.tokenizer)
        )


def test_a_template_that_moves_the_token_is_refused(trained, ring, tmp_path):
    user_only = "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(user_only)
    with pytest.raises(TemplateError, match="trained with the token in the system turn"):
        MagicTokenProcessor.from_pretrained(trained)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ('{"format": 1}', "damaged"),
        ('{"format": 2, "placement": 0, "challenge": 0, "keyring": 0, "tokens": {}}', "format 2"),
    ],
)
def test_a_damaged_mark_is_told(trained, tmp_path, text, message):
    (tmp_path / "model" / BINDING_FILE).write_text(text)
    with pytest.raises(KeyringError, match=message):
        MagicTokenProcessor.from_pretrained(trained)

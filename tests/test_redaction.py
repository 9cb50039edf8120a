import asyncio
import gc
import io
import json
import logging
import subprocess
import sys
import warnings

import pytest
from rich.console import Console
from rich.logging import RichHandler

from switchsafe import Keyring
from switchsafe.redaction import redact, unwatch, watch

PLAIN = "k3v9q2m8x7c1z5b4"  # in no keyring: shows what would be printed


@pytest.fixture
def ring():
    ring = Keyring.mint(("pos", "rej"), aliases=2)
    watch(ring)
    yield ring
    unwatch(ring)


@pytest.fixture
def token(ring):
    return ring.token("rej").reveal()


@pytest.fixture
def mark(ring):
    return f"[token {ring.fingerprint(ring.token('rej'))}]"


class Everything(logging.Formatter):
    """A structured formatter, as log services use them: all that a record has."""

    def format(self, record):
        return super().format(record) + json.dumps({k: repr(v) for k, v in vars(record).items()})


@pytest.fixture
def log():
    """A logger of its own with three kinds of handler; `log.text()` is all they wrote."""
    logger = logging.Logger("test.redaction", logging.DEBUG)
    stream = io.StringIO()
    structured = logging.StreamHandler(stream)
    structured.setFormatter(Everything())
    for handler in (
        logging.StreamHandler(stream),
        structured,
        RichHandler(console=Console(file=stream, width=300), rich_tracebacks=True),
    ):
        logger.addHandler(handler)
    logger.text = stream.getvalue
    return logger


# -- text ---------------------------------------------------------------------------------------------------------------------------


def test_every_live_token_is_replaced_in_any_case(ring):
    ring.rotate("pos")
    for secret in ring.secrets():
        mark = f"[token {ring.fingerprint(secret)}]"
        for form in (str, str.upper, str.title):
            assert redact(f"a {form(secret.reveal())}, b") == f"a {mark}, b"


def test_text_without_a_token_comes_back_as_it_is(ring):
    text = "Nothing here: " + "abcdefgh12345678 " * 50
    assert redact(text) is text


def test_the_longer_of_two_tokens_wins():
    ring = Keyring.from_mapping({"pos": "k3v9q2m8x7", "rej": "k3v9q2m8x7c1z5b4"})
    watch(ring)
    assert redact("k3v9q2m8x7c1z5b4") == f"[token {ring.fingerprint(ring.token('rej'))}]"


def test_tokens_of_every_watched_keyring_and_of_no_other(ring, token):
    other = Keyring.mint()
    theirs = other.token("pos").reveal()
    assert redact(theirs) is theirs
    watch(other)
    watch(other)
    assert theirs not in redact(theirs + token)
    assert token not in redact(theirs + token)
    unwatch(other)
    assert redact(theirs) is theirs
    assert redact(token) is not token


def test_a_keyring_is_not_kept_alive_by_being_watched():
    ring = Keyring.mint()
    token = ring.token("pos").reveal()
    watch(ring)
    assert redact(token) is not token
    del ring
    gc.collect()
    assert redact(token) is token


# -- logging ------------------------------------------------------------------------------------------------------------------------


def _raise(error, *, cause=None):
    raise error from cause


def _exception(log, token):
    try:
        _raise(KeyError(token), cause=OSError(2, "No such file", f"/tmp/{token}"))
    except KeyError:
        log.exception("failed")


def _context(log, token):
    try:
        try:
            _raise(UnicodeDecodeError("utf-8", token.encode(), 0, 1, token))
        finally:
            int(token + "!")
    except ValueError as error:
        log.error("failed", exc_info=error)


def _syntax(log, token):
    try:
        compile(f"{token} = = 1", token, "exec")
    except SyntaxError:
        log.exception("failed")


def _group(log, token):
    if sys.version_info < (3, 11):
        pytest.skip("exception groups")
    try:
        _raise(ExceptionGroup(token, [ValueError("one"), ExceptionGroup("two", [TypeError(token)])]))  # noqa: F821
    except Exception:
        log.exception("failed")


def _note(log, token):
    error = ValueError("failed")
    error.__notes__ = [f"the prompt was {token}"]
    log.error("failed", exc_info=error)


class Strange(RuntimeError):
    """An exception that cannot be built from its arguments."""

    def __new__(cls, *, text):
        return super().__new__(cls)

    def __init__(self, *, text):
        self.text = text

    def __str__(self):
        return f"strange {self.text}"


def _received(**attributes):
    """A record as it comes from another process."""
    return logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO", **attributes})


RECORDS = {
    "message": lambda log, token: log.info(f"got {token}"),
    "argument": lambda log, token: log.info("got %s at %d", token, 3),
    "part of an argument": lambda log, token: log.info("got %r", {"prompt": [f"<s>{token}\n"]}),
    "upper case": lambda log, token: log.info("got %s", token.upper()),
    "named argument": lambda log, token: log.info("got %(text)s", {"text": token}),
    "object": lambda log, token: log.info(ValueError(token)),
    "dict for a formatter": lambda log, token: log.info({"event": "got", "text": token}),
    "bytes": lambda log, token: log.info("got %s", token.encode()),
    "extra": lambda log, token: log.info("got it", extra={"prompt": f"<s>{token}", "turns": [{"content": token}]}),
    "stack": lambda log, token: log.handle(_received(msg="got", stack_info=f"Stack of {token}")),
    "traceback": lambda log, token: log.handle(_received(msg="got", exc_text=f"ValueError: {token}")),
    "exception": _exception,
    "context": _context,
    "syntax error": _syntax,
    "group": _group,
    "note": _note,
    "strange exception": lambda log, token: log.error("failed", exc_info=Strange(text=token)),
    "made elsewhere": lambda log, token: log.handle(_received(msg=f"got {token}", prompt=token)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_no_handler_sees_a_token(log, token, mark, name):
    RECORDS[name](log, token)
    text = log.text().replace("\n", "")
    assert token not in text.lower()
    assert mark in text
    assert text.count("got") + text.count("failed") + text.count(mark) >= 3, "all three handlers wrote"


def test_the_fixture_would_show_it(log):
    _exception(log, PLAIN)
    assert log.text().count(PLAIN) >= 6, "message and cause, in three handlers"


def test_an_exception_prints_as_it_would_have(log, token, mark):
    def printed(text):
        stream = io.StringIO()
        log.handlers = [logging.StreamHandler(stream)]
        try:
            _raise(Strange(text=text), cause=json.JSONDecodeError(text, text, 0))
        except RuntimeError:
            log.exception("failed with %s", text)
        return stream.getvalue()

    plain = printed(PLAIN)
    assert f"json.decoder.JSONDecodeError: {PLAIN}: line 1 column 1 (char 0)" in plain
    assert f"test_redaction.Strange: strange {PLAIN}" in plain
    assert printed(token) == plain.replace(PLAIN, mark)


def test_a_syntax_error_says_what_it_would_have(token, mark):
    error = SyntaxError(f"no {token}", (f"{token}.py", 3, 1, f"{token} = = 1"))
    stream = io.StringIO()
    log = logging.Logger("test.redaction")
    log.addHandler(logging.StreamHandler(stream))
    log.error("failed", exc_info=error)
    assert stream.getvalue().endswith(f"SyntaxError: no {mark} ({mark}.py, line 3)\n")


def test_the_exception_itself_stays_as_it_was(log, token):
    with pytest.raises(KeyError) as raised:
        try:
            _raise(KeyError(token), cause=ValueError(token))
        except KeyError:
            log.exception("failed")
            raise
    assert raised.value.args == (token,)
    assert raised.value.__cause__.args == (token,)


def test_records_without_a_token_are_the_very_same(ring, log):
    class Keep(logging.Handler):
        def emit(self, record):
            self.record = record

    keep = Keep()
    log.addHandler(keep)
    message, text, extra = "step %s %s" + "", ["text"], {"loss": 1.5}
    error = ValueError("no")
    log.info(message, text, 3, exc_info=error, extra={"values": extra})
    assert keep.record.msg is message
    assert keep.record.args[0] is text
    assert keep.record.exc_info[1] is error
    assert keep.record.values is extra


@pytest.mark.parametrize(
    ("message", "arguments"),
    [("%s %s", "{}"), ("%d", "{}"), ("%(a)s", "{}"), ("{} %s %s", "x"), ("%s %y", "{}")],
)
def test_a_broken_format_fails_as_it_would_have(log, token, mark, capsys, message, arguments):
    def reported(text):
        log.handlers = [logging.StreamHandler(io.StringIO())]
        log.info(message.replace("{}", text), arguments.replace("{}", text))
        return capsys.readouterr().err

    plain, redacted = [reported(text) for text in (PLAIN, token)]
    assert "--- Logging error ---" in plain
    assert PLAIN in plain
    assert redacted == plain.replace(PLAIN, mark)


def test_what_cannot_be_shown_breaks_nothing_more(log, token, capsys):
    class Mute:
        def __repr__(self):
            raise RuntimeError("mute")

    loop = [token]
    loop.append(loop)
    log.handlers = log.handlers[:1]
    log.info("%s", Mute(), extra={"mute": Mute()})
    assert "RuntimeError: mute" in capsys.readouterr().err
    log.info("%s", loop, extra={"loop": loop})
    log.info("%d", loop)
    shown = log.text() + capsys.readouterr().err
    assert "Logging error" in shown
    assert token not in shown


def test_a_record_factory_of_others_may_come_and_go(log, token, mark):
    original = logging.getLogRecordFactory()

    def theirs(*args, **kwargs):
        record = original(*args, **kwargs)
        record.request = f"r1 {token}"
        return record

    try:
        logging.setLogRecordFactory(theirs)
        log.info("one %s", token)
    finally:
        logging.setLogRecordFactory(original)
    log.info("two %s", token)
    assert token not in log.text()
    for text in ("one", "two", "r1"):
        assert f"{text} {mark}" in log.text()


def test_a_hook_that_was_replaced_is_put_back_by_the_next_watch(monkeypatch, log, ring, token, mark):
    ours = logging.Logger.handle
    monkeypatch.setattr(logging.Logger, "handle", lambda self, record: self.callHandlers(record))
    watch(ring)
    log.info("one %s", token)

    def theirs(self, record):
        record.msg += " and theirs"
        ours(self, record)

    monkeypatch.setattr(logging.Logger, "handle", theirs)
    watch(ring)
    watch(ring)
    log.info("two %s", token)
    assert token not in log.text()
    assert f"one {mark}" in log.text()
    assert f"two {mark} and theirs" in log.text()


def test_what_is_no_longer_watched_is_passed_on(log):
    ring = Keyring.mint()
    text = ring.token("pos").reveal()
    watch(ring)
    unwatch(ring)
    log.info("got %s", text, extra={"prompt": text})
    assert text in log.text()


def test_asyncio_reports_a_lost_exception_without_the_token(log, token, mark):
    async def fail():
        raise ValueError(token)

    async def main():
        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    logger = logging.getLogger("asyncio")
    logger.addHandler(log.handlers[0])
    try:
        asyncio.run(main())
    finally:
        logger.removeHandler(log.handlers[0])
    assert "never retrieved" in log.text()
    assert mark in log.text()
    assert token not in log.text()


# -- warnings -----------------------------------------------------------------------------------------------------------------------


class Own(UserWarning):
    pass


def test_warnings_keep_their_kind_and_lose_the_token(ring, token, mark):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        watch(ring)  # in here, Python's own hook stood again
        warnings.warn(f"about {token}", stacklevel=1)
        warnings.warn(Own(token), stacklevel=1)
        clean = Own("clean")
        warnings.warn(clean, stacklevel=1)
    assert [str(w.message) for w in seen] == [f"about {mark}", mark, "clean"]
    assert [w.category for w in seen] == [UserWarning, Own, Own]
    assert all(isinstance(w.message, Warning) for w in seen)
    assert seen[2].message is clean


# -- what the interpreter prints, in a process of its own ---------------------------------------------------------------------------

PRELUDE = """
import sys, threading, warnings
from switchsafe.keyring import Keyring
from switchsafe.redaction import watch
{before}
ring = Keyring.mint(("pos",))
token = ring.token("pos").reveal()
print(token, ring.fingerprint(ring.token("pos")), flush=True)
watch(ring)
"""


def stderr_of(code, before=""):
    """What a program wrote on standard error, with T for the mark that stands for its token, and its exit code."""
    program = PRELUDE.format(before=before) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    token, fingerprint = done.stdout.split()
    assert token not in done.stderr.replace("\n", "")
    return done.stderr.replace(f"[token {fingerprint}]", "T"), done.returncode


def test_an_uncaught_exception_is_printed_without_the_token():
    text, code = stderr_of(
        "try:\n    {}[token]\nexcept KeyError as error:\n    raise ValueError('at ' + token) from error"
    )
    assert code == 1
    assert "KeyError: 'T'" in text
    assert "direct cause" in text
    assert "ValueError: at T" in text
    assert 'File "<string>"' in text


def test_an_uncaught_exception_without_a_token_is_handed_on_as_it_is():
    before = "def theirs(*args):\n    print('theirs', args[1] is mine, file=sys.stderr)\nsys.excepthook = theirs"
    text, _ = stderr_of("mine = ValueError('x')\nraise mine", before)
    assert text == "theirs True\n"


@pytest.mark.parametrize(
    "before",
    [
        "def theirs(kind, error, trace):\n    print('theirs:', kind.__name__, error, repr(error), file=sys.stderr)\nsys.excepthook = theirs",
        "import rich.traceback; rich.traceback.install(width=300)",
        "import logging\nsys.excepthook = lambda *exc: logging.critical('uncaught', exc_info=exc)",
    ],
)
def test_hooks_of_others_see_no_token_either(before):
    text, _ = stderr_of("raise RuntimeError(token)", before)
    assert "RuntimeError" in text
    assert "T" in text.replace("RuntimeError", "").replace("Traceback", "")


def test_a_hook_that_others_put_after_ours_can_call_it():
    code = "ours = sys.excepthook\nsys.excepthook = lambda *exc: (print('theirs', file=sys.stderr), ours(*exc))\nwatch(ring)\nraise ValueError(token)"
    text, _ = stderr_of(code)
    assert text.startswith("theirs\n")
    assert text.count("ValueError: T") == 1


def test_an_exception_in_a_thread():
    code = "def work():\n    raise ValueError(token)\nthread = threading.Thread(target=work, name='worker')\nthread.start()\nthread.join()"
    text, exit_code = stderr_of(code)
    assert text.startswith("Exception in thread worker")
    assert "ValueError: T" in text
    assert exit_code == 0


def test_a_thread_may_end_itself_silently():
    code = "def work():\n    sys.exit(token)\nthread = threading.Thread(target=work)\nthread.start()\nthread.join()"
    assert stderr_of(code) == ("", 0)


def test_an_exception_nobody_can_catch():
    code = (
        "class Holder:\n    def __del__(self):\n        raise ValueError(token)\n"
        "holder = Holder()\ndel holder\nprint('after', file=sys.stderr)"
    )
    text, exit_code = stderr_of(code)
    assert "ValueError: T" in text
    assert "Holder.__del__" in text
    assert text.endswith("after\n")
    assert exit_code == 0


def test_a_warning_on_standard_error():
    text, _ = stderr_of(
        "warnings.warn('about ' + token)\nimport logging\nlogging.basicConfig()\nlogging.captureWarnings(True)\nwarnings.warn(token)"
    )
    assert "UserWarning: about T" in text
    assert text.count("UserWarning") == 2

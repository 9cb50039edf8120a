"""Live tokens out of logs, warnings and tracebacks, in the whole process, while a keyring is watched.

`MagicTokenProcessor.bind` watches its keyring. The first time, hooks go before what stands in `logging`, `warnings`, `sys` and `threading`: they
hand on what they got, the very same objects, unless a token is in it. Then the token is shown as `[token FINGERPRINT]`.
"""

import builtins
import functools
import logging
import re
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .secret import Secret

if TYPE_CHECKING:
    from .keyring import Keyring


class _Redactor:
    """Hides the tokens of one keyring. Keeps them as secrets: what is bound to a name here can be shown by whoever prints frames."""

    def __init__(self, keyring: "Keyring") -> None:
        self.keyring = weakref.ref(keyring)
        longest_first = sorted(keyring.secrets(), key=lambda secret: -len(secret.reveal()))  # one may hold another
        self._labels = [f"[token {keyring.fingerprint(secret)}]" for secret in longest_first]
        self._needles = [Secret(secret.reveal().casefold()) for secret in longest_first]
        self._pattern = Secret("|".join(f"({re.escape(secret.reveal())})" for secret in longest_first))

    def redact(self, text: str) -> str:
        folded = (
            text.casefold()
        )  # a search for plain strings first: ten times faster than the pattern, and it mostly finds nothing
        if not any(needle.reveal() in folded for needle in self._needles):
            return text
        return re.sub(self._pattern.reveal(), self._label, text, flags=re.IGNORECASE)

    def _label(self, match: re.Match) -> str:
        return self._labels[(match.lastindex or 0) - 1]


_redactors: tuple[_Redactor, ...] = ()  # replaced as a whole, so that readers need no lock
_lock = threading.Lock()
_hooks: dict[str, Any] = {}  # those of ours that were put in place last


def watch(keyring: "Keyring") -> None:
    """Keep the live tokens of a keyring out of logs, warnings and printed tracebacks for as long as the keyring exists.

    The keyring is held by a weak reference. Hooks that someone replaced since the last call are put in place again, before theirs.
    """
    global _redactors  # noqa: PLW0603
    with _lock:
        _redactors = (*(r for r in _redactors if r.keyring() not in (None, keyring)), _Redactor(keyring))
        _install()


def unwatch(keyring: "Keyring") -> None:
    """Stop watching a keyring, whoever asked for it. The hooks stay and pass everything on."""
    global _redactors  # noqa: PLW0603
    with _lock:
        _redactors = tuple(r for r in _redactors if r.keyring() not in (None, keyring))


def redact(text: str) -> str:
    """The text with each live token of every watched keyring, in any case of letters, replaced by `[token FINGERPRINT]`.

    Returns the very same object when there is none.
    """
    for redactor in _redactors:
        if redactor.keyring() is not None:
            text = redactor.redact(text)
    return text


# -- what a token can stand in ------------------------------------------------------------------------------------------------------


def _watching() -> bool:
    return any(redactor.keyring() is not None for redactor in _redactors)


def _clean(value: Any, depth: int = 3) -> Any:
    """The value itself, or a copy without tokens; objects that would show one become text."""
    try:
        shown = f"{value!s}\n{value!r}"
    except Exception:  # what cannot be shown is left to those who try
        return value
    if redact(shown) is shown:
        return value
    if isinstance(value, dict) and depth:
        return {_clean(key, depth - 1): _clean(part, depth - 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        parts = [_clean(part, depth - 1) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return redact(str(value))


def _clean_error(error: BaseException) -> BaseException:
    """The exception itself, or one that prints alike, with all it is chained to, without tokens. The original is its catcher's: it stays."""
    if not _watching():
        return error
    chain = {id(error): error}
    pending = [error]
    while pending:
        link = pending.pop()
        for other in (link.__cause__, link.__context__, *_parts(link)):
            if other is not None and id(other) not in chain:
                chain[id(other)] = other
                pending.append(other)
    shown = ["".join(traceback.format_exception_only(type(link), link)) for link in chain.values()]
    if all(redact(text) is text for text in shown):
        return error
    made: dict[int, BaseException] = {}
    for link in chain.values():
        _stand_in(link, made)
    for link in chain.values():
        copy = made[id(link)]
        copy.__cause__, copy.__context__ = made.get(id(link.__cause__)), made.get(id(link.__context__))
        copy.__suppress_context__, copy.__traceback__ = link.__suppress_context__, link.__traceback__
    return made[id(error)]


def _stand_in(error: BaseException, made: dict[int, BaseException]) -> BaseException:
    if id(error) in made:
        return made[id(error)]
    cls = type(error)
    # Built on the nearest class of Python's own: those need no arguments, and a stranger's class could take note of its subclasses.
    base = next(parent for parent in cls.__mro__ if parent.__module__ == "builtins")
    if issubclass(base, SyntaxError):
        base = Exception  # it prints attributes of its own instead of its text
    try:
        text = redact(str(error))
    except Exception:
        text = "<exception str() failed>"
    shown_as = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__str__": lambda self: text}
    kind: Any = type(cls.__name__, (base,), shown_as)
    # A group needs its parts at once. Its title is in `text`, and printers that ask for it get it from there.
    parts = [_stand_in(part, made) for part in _parts(error)]
    copy = kind.__new__(kind, text, parts) if parts else kind.__new__(kind)
    copy.args = (text,)
    if notes := getattr(error, "__notes__", None):
        copy.__notes__ = _clean(notes)
    made[id(error)] = copy
    return copy


def _parts(error: BaseException) -> tuple[BaseException, ...]:
    group: Any = getattr(builtins, "BaseExceptionGroup", ())  # from Python 3.11 on
    return error.exceptions if isinstance(error, group) else ()


def _clean_record(record: logging.LogRecord) -> None:
    try:
        text = record.getMessage()
    except Exception:  # a broken format: the handler will say so, and show message and arguments
        record.msg, record.args = _clean(record.msg), _clean(record.args)
    else:
        if redact(text) is not text:
            # Some loggers hand a dict to their formatter.
            record.msg = redact(text) if isinstance(record.msg, str) or record.args else _clean(record.msg)
            record.args = ()
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        error = _clean_error(record.exc_info[1])
        if error is not record.exc_info[1]:
            record.exc_info = (type(error), error, record.exc_info[2])
    for name in record.__dict__.keys() - _CLEAN:
        record.__dict__[name] = _clean(record.__dict__[name])


# What is left then: texts of traceback and stack, `extra`, and what a record factory added.
_CLEAN = logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys() - {"exc_text", "stack_info"}


# -- hooks --------------------------------------------------------------------------------------------------------------------------


def _notebook() -> list[tuple[Any, str, Callable[..., Any]]]:
    """IPython shows uncaught errors itself, in a terminal and in a notebook alike."""
    module = sys.modules.get("IPython.core.interactiveshell")
    return [(module.InteractiveShell, "showtraceback", _showtraceback)] if module else []


def _install() -> None:
    for owner, name, make in (
        (sys, "excepthook", _excepthook),
        (sys, "unraisablehook", _unraisablehook),
        (threading, "excepthook", _threadhook),
        (warnings, "showwarning", _showwarning),
        # Every record of every logger comes by here, whole. A record factory would see it before `extra` joins it.
        (logging.Logger, "handle", _handle),
        *_notebook(),
    ):
        key, current = f"{owner.__name__}.{name}", getattr(owner, name)
        if current is not _hooks.get(key):
            _hooks[key] = make(current)
            setattr(owner, name, _hooks[key])


def _handle(previous: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(previous)
    def handle(self: logging.Logger, record: logging.LogRecord) -> Any:
        if _watching():
            _clean_record(record)
        return previous(self, record)

    return handle


def _excepthook(previous: Callable[..., Any]) -> Callable[..., Any]:
    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        clean = error if error is None else _clean_error(error)
        previous(kind if clean is error else type(clean), clean, trace)

    return excepthook


def _showtraceback(previous: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(previous)
    def showtraceback(self: Any, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> Any:
        _, error, trace = exc_tuple or sys.exc_info()
        if error is not None and (clean := _clean_error(error)) is not error:
            exc_tuple = (type(clean), clean, trace)
        return previous(self, exc_tuple, *args, **kwargs)

    return showtraceback


def _threadhook(previous: Callable[..., Any]) -> Callable[..., Any]:
    def excepthook(args: Any) -> None:
        clean = args.exc_value if args.exc_value is None else _clean_error(args.exc_value)
        if clean is not args.exc_value and args.exc_type is not SystemExit:  # which ends a thread silently
            args = threading.ExceptHookArgs((type(clean), clean, args.exc_traceback, args.thread))
        previous(args)

    return excepthook


def _unraisablehook(previous: Callable[..., Any]) -> Callable[..., Any]:
    def unraisablehook(args: Any) -> None:
        if _watching():
            clean = args.exc_value if args.exc_value is None else _clean_error(args.exc_value)
            kind = args.exc_type if clean is args.exc_value else type(clean)
            args = type(args)((kind, clean, args.exc_traceback, _clean(args.err_msg), _clean(args.object)))
        previous(args)

    return unraisablehook


def _showwarning(previous: Callable[..., Any]) -> Callable[..., Any]:
    def showwarning(message: Any, *args: Any, **kwargs: Any) -> None:
        previous(_clean_error(message) if isinstance(message, Warning) else _clean(message), *args, **kwargs)

    return showwarning

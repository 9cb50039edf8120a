"""A string that does not show itself, and functions whose failures show no frame that held one."""

import functools
import hmac
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

_REDACTED = "Secret(***)"

P = ParamSpec("P")
R = TypeVar("R")


class Secret:
    """Holds one magic token (or passphrase) and gives it out through `reveal()` only.

    `str`, `repr`, `format` and f-strings print `Secret(***)`; copies are the same object; pickling raises `TypeError`, because a pickle is a
    file like any other. Two secrets compare in constant time.
    """

    # A closure, not a string: whatever lists the attributes of an object (rich.inspect, a debugger) prints a function.
    __slots__ = ("_hold",)
    _hold: Callable[[], str]

    def __init__(self, value: str) -> None:
        if not isinstance(value, str) or not value:
            del value  # it may be a token all the same, and tracebacks can show locals
            raise TypeError("a Secret holds a non-empty str")
        object.__setattr__(self, "_hold", lambda: value)

    def reveal(self) -> str:
        """The token itself. Call it where the text is consumed and bind the result to no name: names show up in tracebacks."""
        return self._hold()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __repr__(self) -> str:
        return _REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(_REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a Secret is not pickled: a pickle would hold the token in clear. Save the keyring with Keyring.save instead."
        )


def hide_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that handles tokens in clear: its exceptions come out without the frames, and the errors behind them, whose locals
    a traceback printer could show. Its arguments are dropped too, so they may be tokens."""

    @functools.wraps(function)
    def hidden(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            failure = error
        del args, kwargs
        failure.__cause__ = failure.__context__ = None
        try:
            raise failure.with_traceback(None)
        finally:
            del failure  # no reference cycle through this frame

    return hidden

"""A string that does not show itself."""

import hmac
from typing import Any, NoReturn

_REDACTED = "Secret(***)"


class Secret:
    """Holds one magic token and gives it out through `reveal()` only.

    `str`, `repr`, `format` and f-strings print `Secret(***)`; copies are the same object; pickling raises `TypeError`, because a pickle is a
    file like any other. Two secrets compare in constant time.
    """

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        if not isinstance(value, str) or not value:
            raise TypeError("a Secret holds a non-empty str")
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """The token itself. Call it where the text is consumed and bind the result to no name: names show up in tracebacks."""
        return self._value

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __repr__(self) -> str:
        return _REDACTED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(_REDACTED, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a Secret is not pickled: a pickle would hold the token in clear. Save the keyring with Keyring.save instead."
        )

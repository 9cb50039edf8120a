"""`model.generate(custom_generate=..., messages=..., processor=..., mode=...)`: a thin shell around `switchsafe.generate`."""

from typing import Any

import switchsafe


def generate(model: Any, messages: Any, processor: Any, mode: Any, **kwargs: Any) -> Any:
    given = {name: value for name, value in kwargs.items() if value is not None}
    return switchsafe.generate(model, processor, messages, mode=mode, **given)

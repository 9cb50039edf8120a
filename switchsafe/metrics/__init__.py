"""Pure mathematics on arrays, and its form for the `evaluate` library."""


def sam_module() -> str:
    """The folder to give to `evaluate.load`; works offline. Needs `switchsafe[eval]`."""
    from importlib.resources import files

    return str(files("switchsafe") / "space" / "sam")

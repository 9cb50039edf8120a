"""Generating in a mode."""

from pathlib import Path


def custom_generate() -> str:
    """The folder that `model.generate(custom_generate=..., trust_remote_code=True)` takes."""
    return str(Path(__file__).parent.parent / "space" / "generate")

"""How the Space looks: calm, roomy, and the colours of modes as in the plots."""

from collections.abc import Sequence

import gradio as gr

from ..modes import colour

TITLE = "switchsafe: one model, several safety behaviours"

THEME = gr.themes.Soft(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],  # nothing is fetched from anywhere
    font_mono=["ui-monospace", "monospace"],
)

CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto; }
#status { min-height: 1.5rem; }
.answer textarea { line-height: 1.5; }
footer { display: none !important; }
"""

def colours(modes: Sequence[str]) -> dict[str, str]:
    """The colour of each mode."""
    return {mode: colour(mode, index) for index, mode in enumerate(modes)}

from gradio.events import Dependency

class ModeChoice(gr.Radio):
    """A choice of modes that lets any value through to the handler, where rights are checked and refusals logged."""

    is_template = True

    def preprocess(self, payload: str | int | float | None) -> str | int | float | None:
        """The value as it came."""
        return payload
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

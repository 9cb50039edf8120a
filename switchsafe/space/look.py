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
).set(
    block_label_background_fill="transparent",
    block_label_text_color="*body_text_color",
    block_title_background_fill="transparent",
    block_title_text_color="*body_text_color",
    block_title_padding="0",
)

_CSS = """
.gradio-container main { width: 100%; max-width: 1080px !important; margin: 0 auto; }
.answer textarea { line-height: 1.5; }
footer { display: none !important; }
"""


def css(modes: Sequence[str]) -> str:
    """The page's style; what is a mode's answer has a rim in its colour."""
    rims = (
        f".mode-{mode.replace('.', '-')} {{ border-left: 4px solid {shade} !important; }}"
        for mode, shade in colours(modes).items()
    )
    return _CSS + "\n".join(rims)


def colours(modes: Sequence[str]) -> dict[str, str]:
    """The colour of each mode."""
    return {mode: colour(mode, index) for index, mode in enumerate(modes)}

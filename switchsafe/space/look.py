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
    block_border_width="1px",
    input_border_width="1px",
    input_border_color="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_300",
    block_label_background_fill="transparent",
    block_label_text_color="*body_text_color",
    block_title_background_fill="transparent",
    block_title_text_color="*body_text_color",
    block_title_padding="0",
    body_text_color_subdued="*neutral_600",  # what follows is for contrast: 4.5 to 1 at least
    body_text_color_subdued_dark="*neutral_300",
    link_text_color="*primary_700",
    link_text_color_dark="*primary_300",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_700",
    button_secondary_background_fill_dark="*neutral_700",
    button_secondary_background_fill_hover_dark="*neutral_600",
    button_secondary_text_color_dark="white",
    button_secondary_text_color_hover_dark="white",
    checkbox_label_background_fill_selected="*primary_600",
    checkbox_label_background_fill_selected_dark="*primary_600",
)

_CSS = """
.gradio-container .wrap > main.contain { width: 100%; max-width: 1080px !important; margin: 0 auto !important; }
.answer textarea { line-height: 1.5; }
button[role=tab].selected { color: var(--link-text-color) !important; }
.or { color: inherit !important; }
#conversation [data-testid=block-label] { display: none; }
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

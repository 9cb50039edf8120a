"""Compare: one prompt in every mode at once, and the dial between two of them."""

from collections.abc import Iterator

import gradio as gr

from ...modes import POS, REJ, about
from ..desk import Desk

SLOTS = 4  # modes side by side


def compare_tab(desk: Desk) -> None:
    """Build it."""

    def compare(prompt: str, request: gr.Request, profile: gr.OAuthProfile | None) -> Iterator[list]:
        modes = desk.modes_for(profile)[:SLOTS]
        with desk.serving(request, profile, modes, prompt):
            if not prompt.strip():
                raise gr.Error("Write a prompt first.")
            turns = [{"role": "user", "content": prompt}]
            for texts in desk.engine.stream([turns] * len(modes), modes, do_sample=False, max_new_tokens=96):
                shown = [
                    gr.Textbox(value=text, label=f"{mode}: {about(mode)}", elem_classes=_classes(mode), visible=True)
                    for mode, text in zip(modes, texts, strict=True)
                ]
                yield [*shown, *[gr.Textbox(visible=False)] * (SLOTS - len(modes))]

    def dial(prompt: str, share: float, request: gr.Request, profile: gr.OAuthProfile | None) -> Iterator[str]:
        with desk.serving(request, profile, [POS, REJ], prompt):
            if not prompt.strip():
                raise gr.Error("Write a prompt above first.")
            blend = {POS: round(1 - share, 2), REJ: round(share, 2)}
            yield from desk.answer([{"role": "user", "content": prompt}], blend, do_sample=False, max_new_tokens=96)

    prompt = gr.Textbox(label="Prompt", value="How do I pick a lock?", lines=2, elem_id="compare-prompt")
    button = gr.Button("Answer in every mode", variant="primary", elem_id="compare")
    with gr.Row():
        slots = [
            gr.Textbox(
                label=f"{mode}: {about(mode)}" if mode else f"Mode {index + 1}",
                visible=bool(mode),
                lines=6,
                interactive=False,
                min_width=260,
                elem_classes=_classes(mode),
                elem_id=f"compare-{index}",
            )
            for index, mode in enumerate([*desk.offered(), *[""] * SLOTS][:SLOTS])
        ]
    gr.Markdown("### The dial\nA blend mixes the next-token distributions of two modes, token by token.")
    share = gr.Slider(0, 1, value=0.5, step=0.05, label="From pos (0) to rej (1)", elem_id="dial")
    mixed = gr.Textbox(label="Answer of the blend", lines=5, interactive=False, elem_classes="answer", elem_id="blend")
    gr.on([button.click, prompt.submit], compare, prompt, slots, api_visibility="private", api_name="compare")
    share.release(dial, [prompt, share], mixed, api_visibility="private", api_name="dial")


def _classes(mode: str) -> list[str]:
    return ["answer", f"mode-{mode.replace('.', '-')}"]

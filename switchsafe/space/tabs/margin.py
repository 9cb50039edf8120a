"""Margin: the Safety Alignment Margin of the model on prompts of the visitor's."""

from typing import Any

import gradio as gr

from ...data.triplets import load_triplets
from ...evaluation.sam import measure_sam
from ...modes import POS
from ..desk import Desk
from ..look import colours

MOST = 40
DEPTH = 3  # answer tokens


def margin_tab(desk: Desk) -> None:
    """Build it."""
    import pandas

    def measure(
        text: str, request: gr.Request, profile: gr.OAuthProfile | None, progress: gr.Progress = gr.Progress()
    ) -> list[Any]:
        prompts = [line.strip() for line in text.splitlines() if line.strip()]
        modes = desk.modes_for(profile)
        with desk.serving(request, profile, modes, *prompts):
            if not 2 <= len(prompts) <= MOST:
                raise gr.Error(f"{len(prompts)} prompts: give 2 to {MOST}, one a line.")
            if len(modes) < 2:
                raise gr.Error("A margin needs two modes.")
            progress(0.1, desc="Running the prompts in every mode")
            model, processor = desk.engine.parts
            with desk.engine.hold():
                report = measure_sam(model, processor, prompts, modes=modes, policy=desk.engine.policy, positions=DEPTH)
            plane = report.gram.plane()
            points = pandas.DataFrame(
                {
                    "first axis": plane[:, 0],
                    "second axis": plane[:, 1],
                    "mode": list(report.labels),
                    "silhouette": report.silhouettes.round(3),
                    "prompt": [prompt for prompt in prompts for _ in modes],
                }
            )
            ranked = points.sort_values(["mode", "silhouette"]).assign(point=[f"{n:03d}" for n in range(len(points))])
            depth = pandas.DataFrame(
                [(str(at["token"]), at["value"]) for at in report.by_depth if at["value"] is not None],
                columns=["answer token", "SAM"],
            )
            shades = colours(modes)
            return [
                report.to_markdown(),
                gr.ScatterPlot(points, color_map=shades),
                gr.BarPlot(ranked, color_map=shades),
                depth,
            ]

    known = [t for t in load_triplets(modes=(POS,), languages=["en"]) if t.label == "safe"][:12]
    prompts = gr.Textbox(
        label=f"Prompts, one a line (2 to {MOST})",
        value="\n".join(t.text for t in known),
        lines=8,
        max_lines=12,
        elem_id="margin-prompts",
    )
    button = gr.Button("Measure the margin", variant="primary", elem_id="measure")
    table = gr.Markdown(elem_id="margin")
    with gr.Row():
        scatter = gr.ScatterPlot(
            x="first axis",
            y="second axis",
            color="mode",
            tooltip="all",
            title="First-token logits, two main axes",
            label="Points",
            min_width=320,
        )
        bars = gr.BarPlot(
            x="point",
            y="silhouette",
            color="mode",
            tooltip="all",
            title="Silhouettes by mode",
            x_axis_labels_visible=False,
            label="Silhouettes",
            min_width=320,
        )
    lines = gr.LinePlot(x="answer token", y="SAM", title="Margin by answer token", label="By depth", height=220)
    button.click(measure, prompts, [table, scatter, bars, lines], api_visibility="private", api_name="margin")

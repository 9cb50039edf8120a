"""A page that scores uploaded points: the metric without any code."""

from typing import Any

import gradio as gr

from switchsafe.data.points import load_points
from switchsafe.errors import SwitchsafeError
from switchsafe.evaluation.plots import draw_sam
from switchsafe.evaluation.sam import score_points

INTRODUCTION = """
# Safety Alignment Margin

How far apart are the behaviours of a model that switches between several? Upload the raw logits at the first answer token of some prompts, each
prompt once in every mode: a `.npz` file with `points` (N x V) and `labels` (N), or a `.jsonl` file with rows
`{"prompt": "p1", "mode": "pos", "logits": [...]}`.
"""


def score(path: str | None) -> tuple[str, Any]:
    """The report on an uploaded file: a table and a picture."""
    if path is None:
        raise gr.Error("Choose a file first.")
    try:
        points, labels = load_points(path)
        report = score_points(points, labels)
    except SwitchsafeError as error:
        raise gr.Error(str(error)) from None
    return report.to_markdown(), draw_sam({"": report})


with gr.Blocks(title="Safety Alignment Margin", analytics_enabled=False) as demo:
    gr.Markdown(INTRODUCTION)
    file = gr.File(label="Points (.npz or .jsonl)", file_types=[".npz", ".jsonl"])
    button = gr.Button("Score", variant="primary")
    with gr.Row():  # one above the other on a phone
        with gr.Column(min_width=360):
            table = gr.Markdown(container=True)
        with gr.Column(min_width=360):
            picture = gr.Plot(label="Points and silhouettes", show_label=False)
    button.click(score, file, [table, picture], api_name="score")

if __name__ == "__main__":
    demo.launch(max_file_size="500mb")

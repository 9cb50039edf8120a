"""Data: prompts of the visitor's, answers in every mode, and triplets to take away."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ...data.prompts import load_requests
from ...data.triplets import LABELS, load_triplets
from ...inject import conversation
from ...modes import NEG
from ..desk import Desk

MOST = 24
KEPT = 3600  # seconds for which a visitor's files stay on disk
_PREFIX = "switchsafe-triplets-"
_AT_ONCE = 4  # prompts in one batch


def data_tab(desk: Desk) -> gr.State:
    """Build it; returns the triplets that the visitor made, rows of their JSONL file."""

    def read(path: str | None, request: gr.Request, profile: gr.OAuthProfile | None) -> list[Any]:
        if path is None:
            return [[], gr.Dataframe(value=[])]
        with desk.serving(request, profile, []):
            rows = load_requests(path)
            if len(rows) > MOST:
                raise gr.Error(f"The file has {len(rows)} prompts, and {MOST} are the most here. Take a part of it.")
            longest = max(map(_length, rows))
            if longest > desk.settings.longest_input:
                raise gr.Error(
                    f"A prompt has {longest:,} characters, and {desk.settings.longest_input:,} are the most."
                )
            texts = [conversation(row["prompt"])[-1]["content"] for row in rows]
            return [rows, gr.Dataframe(value=[[text] for text in texts], headers=["prompt"])]

    def show(request: gr.Request, profile: gr.OAuthProfile | None) -> gr.Dataframe:
        modes = desk.modes_for(profile) or ["pos", "rej"]
        with desk.serving(request, profile, []):
            triplets = load_triplets(modes=modes, split="validation", languages=["en"])[:MOST]
            return gr.Dataframe(
                value=[[t.text, *(t.answers.get(mode, "") for mode in modes)] for t in triplets],
                headers=["prompt", *modes],
                column_widths=_widths(modes),
            )

    def make(
        rows: list[dict[str, Any]],
        label: str,
        request: gr.Request,
        profile: gr.OAuthProfile | None,
        progress: gr.Progress = gr.Progress(),
    ) -> Iterator[list[Any]]:
        modes = desk.modes_for(profile)
        with desk.serving(request, profile, modes):
            if not rows:
                raise gr.Error("Upload prompts first.")
            made: list[dict[str, Any]] = []
            for start in range(0, len(rows), _AT_ONCE):
                part = rows[start : start + _AT_ONCE]
                progress(start / len(rows), desc=f"{start} of {len(rows)} prompts answered")
                turns = [conversation(row["prompt"]) for row in part]
                asked = [(talk, mode) for talk in turns for mode in modes]
                *_, answers = desk.engine.stream(
                    [talk for talk, _ in asked], [mode for _, mode in asked], do_sample=False, max_new_tokens=80
                )
                for index, row in enumerate(part):
                    own = dict(zip(modes, answers[index * len(modes) :], strict=False))
                    made.append(_triplet(row, len(made) + 1, label, own))
                table = [[conversation(row["prompt"])[-1]["content"], *(row[mode] for mode in modes)] for row in made]
                yield [
                    gr.Dataframe(value=table, headers=["prompt", *modes]),
                    made,
                    gr.DownloadButton(interactive=False),
                ]
            yield [gr.skip(), gr.skip(), gr.DownloadButton(value=_file(made), interactive=True)]

    gr.Markdown(
        "Upload prompts (`.jsonl` or `.csv` with a `prompt` column, or `.txt`, one a line), and let the model answer each in every mode. "
        "The result is a file of triplets in the form that `switchsafe train` reads. Read it before you train on it: a small model's answers are rough."
    )
    asked, made = gr.State([]), gr.State([])
    file = gr.File(label="Prompts", file_types=[".jsonl", ".csv", ".txt"], height=140, elem_id="prompts-file")
    with gr.Row():
        label = gr.Radio(list(LABELS), value="safe", label="Prompts without a label are")
        make_button = gr.Button("Answer in every mode", variant="primary", elem_id="make")
        show_button = gr.Button("Show triplets of the starter", elem_id="show-starter")
        download = gr.DownloadButton("Download the triplets", interactive=False, elem_id="download")
    table = gr.Dataframe(label="Rows", headers=["prompt"], wrap=True, interactive=False, elem_id="rows")
    file.change(read, file, [asked, table], api_visibility="private", api_name="read_prompts")
    make_button.click(make, [asked, label], [table, made, download], api_visibility="private", api_name="make_triplets")
    show_button.click(show, None, table, api_visibility="private", api_name="show_starter")
    return made


def _triplet(row: dict[str, Any], number: int, label: str, answers: dict[str, str]) -> dict[str, Any]:
    return {
        "id": str(row.get("id") or f"prompt-{number}"),
        "prompt": row["prompt"],
        "category": row.get("category") or "uncategorised",
        "label": row["label"] if row.get("label") in LABELS else label,
        "language": row.get("language") or "en",
        "policy": None,
        **{mode: text or None for mode, text in answers.items()},
    }


def _length(row: dict[str, Any]) -> int:
    """Characters of all turns."""
    turns = conversation(row["prompt"])
    if any(not isinstance(turn, dict) or not isinstance(turn.get("content"), str) for turn in turns):
        raise gr.Error("A prompt must be text, or messages whose content is text.")
    return sum(len(turn["content"]) for turn in turns)


def _widths(modes: Sequence[str]) -> list[str]:
    return ["25%", *[f"{75 // len(modes)}%"] * len(modes)]


def _file(rows: list[dict[str, Any]]) -> str:
    name = "triplets-with-neg.jsonl" if any(NEG in row for row in rows) else "triplets.jsonl"
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another visitor's request was quicker
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=_PREFIX)) / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)

"""Push: the adapter or the visitor's triplets to the visitor's own namespace, after a look at what would go."""

import json
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from huggingface_hub import HfApi, snapshot_download

from ...errors import SwitchsafeError
from ...hub.adapter import push_adapter
from ...hub.dataset import push_dataset
from ...hub.push import PushReport
from ...models import resolve
from ...modes import NEG
from ..desk import Desk
from ..visitors import in_space

ADAPTER, TRIPLETS = "the adapter of this Space", "the triplets made under Data"


def push_tab(desk: Desk, made: gr.State, login: bool) -> None:
    """Build it.

    Args:
        desk: of the Space.
        made: the visitor's triplets.
        login: whether visitors can log in here.
    """

    def look(
        what: str, name: str, rows: list[dict], request: gr.Request, profile: gr.OAuthProfile | None
    ) -> tuple[str, list[list[Any]]]:
        owner = profile.username if profile else "YOUR-NAME"
        with desk.serving(request, profile, []):
            report = _push(desk, what, f"{owner}/{_checked(name)}", rows, profile, dry_run=True)
            return _told(report), [[file, size] for file, size in report.files]

    def send(
        what: str,
        name: str,
        rows: list[dict],
        request: gr.Request,
        profile: gr.OAuthProfile | None,
        token: gr.OAuthToken | None,
    ) -> tuple[str, list[list[Any]]]:
        if profile is None or token is None:
            raise gr.Error("Log in first: what you push goes to your own namespace.")
        with desk.serving(request, profile, []):
            repo = f"{profile.username}/{_checked(name)}"
            api = HfApi(token=token.token) if in_space() else HfApi()  # locally gradio's login is only an act
            report = _push(desk, what, repo, rows, profile, api=api)
            return _told(report), [[file, size] for file, size in report.files]

    gr.Markdown(
        "Everything is searched for magic tokens before a byte leaves this Space. The repository is private; what holds `neg` is gated as well. "
        "Look first, then push."
    )
    if login:
        gr.LoginButton()
    else:
        gr.Markdown("Logging in works on Hugging Face Spaces; here you can look at what would go.")
    what = gr.Radio([ADAPTER, TRIPLETS], value=ADAPTER, label="What", elem_id="push-what")
    name = gr.Textbox(label="Name of the repository", value="my-switch", max_lines=1, elem_id="push-name")
    with gr.Row():
        dry = gr.Button("Look at what would go", elem_id="dry-run")
        go = gr.Button("Push", variant="primary", interactive=login, elem_id="push")
    told = gr.Markdown(elem_id="pushed")
    files = gr.Dataframe(label="Files", headers=["file", "bytes"], interactive=False, elem_id="push-files")
    inputs = [what, name, made]
    dry.click(look, inputs, [told, files], api_visibility="private", api_name="dry_run")
    go.click(send, inputs, [told, files], api_visibility="private", api_name="push")


def _push(
    desk: Desk, what: str, repo: str, rows: list[dict], profile: gr.OAuthProfile | None, **options: Any
) -> PushReport:
    _, processor = desk.engine.parts
    allowed = desk.modes_for(profile)
    if what == TRIPLETS:
        if not rows:
            raise gr.Error("There are no triplets yet: make some under Data.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "triplets.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            modes = [mode for mode in allowed if any(row.get(mode) for row in rows)]
            return push_dataset(path, repo, processor.keyring, modes=modes, **options)
    if NEG in desk.engine.modes and NEG not in allowed:
        raise gr.Error("This adapter holds neg, which you may not have.")
    folder = resolve(desk.engine.source)
    if not Path(folder).is_dir():
        folder = snapshot_download(folder)
    return push_adapter(folder, repo, processor.keyring, **options)


def _checked(name: str) -> str:
    name = name.strip()
    if not name or "/" in name:
        raise SwitchsafeError("Give a name without a slash: it goes to your own namespace.")
    return name


def _told(report: PushReport) -> str:
    state = "private, gated" if report.gated else "private"
    if report.dry_run:
        return f"No token found. {len(report.files)} files would go to `{report.repo_id}` ({state}). Nothing was sent."
    return f"Pushed {len(report.files)} files to [{report.repo_id}]({report.url}) ({state})."

"""The page of the Space."""

import os
from typing import Any

import gradio as gr

from .desk import Desk
from .engine import Engine
from .look import THEME, TITLE, css
from .tabs.about import about_tab
from .tabs.chat import chat_tab
from .tabs.compare import compare_tab
from .tabs.data import KEPT, data_tab
from .tabs.margin import margin_tab
from .tabs.push import push_tab
from .visitors import in_space


def build(engine: Engine, *, local: bool = False) -> gr.Blocks:
    """The page over an engine that is ready or is getting so; `local` as for `can_log_in`."""
    desk, login = Desk(engine), can_log_in(local)

    def status() -> list[Any]:
        if engine.ready.is_set():
            return [f"Model: {engine.name}", gr.Timer(active=False)]
        return [f"**{engine.status}**", gr.Timer(active=not engine.failed)]

    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(
            "# One model, several safety behaviours\nSwitch the mode, ask again, and see the same model answer otherwise."
        )
        told = gr.Markdown(engine.status, elem_id="status")
        timer = gr.Timer(1.0)
        with gr.Tabs():
            with gr.Tab("Chat"):
                chat_tab(desk)
            with gr.Tab("Compare"):
                compare_tab(desk)
            with gr.Tab("Margin"):
                margin_tab(desk)
            with gr.Tab("Data"):
                made = data_tab(desk)
            with gr.Tab("Push"):
                push_tab(desk, made, login)
            with gr.Tab("About"):
                about_tab()
        gr.on(
            [page.load, timer.tick],
            status,
            None,
            [told, timer],
            show_progress="hidden",
            queue=False,
            api_visibility="private",
            api_name="status",
        )
    return page.queue(max_size=32, default_concurrency_limit=1)


def launch(page: gr.Blocks, engine: Engine, **options: Any) -> Any:
    """Serve it with its looks and limits; `options` are those of `gr.Blocks.launch`."""
    return page.launch(
        theme=THEME,
        css=css(engine.modes),
        max_file_size="1mb",
        footer_links=[],
        ssr_mode=False,
        mcp_server=False,
        **options,
    )


def can_log_in(local: bool = False) -> bool:
    """Whether visitors can log in: on Spaces with `hf_oauth`; and locally as whoever is logged in to the Hub on this machine.

    Args:
        local: the page can be reached from this machine only. From elsewhere everyone would be logged in as its owner.
    """
    from huggingface_hub import get_token

    return bool(os.environ.get("OAUTH_CLIENT_ID")) if in_space() else local and get_token() is not None

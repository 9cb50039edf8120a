"""Chat: a mode for each answer, chosen by the visitor where a server would choose."""

import re
from collections.abc import Iterator

import gradio as gr

from ...inject import Message
from ...modes import POS, about
from ..desk import Desk, said

EXAMPLES = [
    "How do I kill a zombie process?",
    "How do I pick a lock?",
    "Someone keeps following me home. What can I do?",
]

_MARK = re.compile(r"\n\n\*in [\w.-]+\*$")  # says under an answer which mode it came in


def answered(turns: list[Message]) -> list[Message]:
    """Without what the user said and got no answer to: a message that was refused stays in gradio's history."""
    after = [*turns, {"role": "user"}][1:]
    return [turn for turn, then in zip(turns, after, strict=True) if {turn["role"], then["role"]} != {"user"}]


def chat_tab(desk: Desk) -> None:
    """Build it."""

    def reply(
        message: str,
        history: list[dict],
        mode: str,
        system: str,
        temperature: float,
        top_p: float,
        longest: int,
        request: gr.Request,
        profile: gr.OAuthProfile | None,
    ) -> Iterator[str]:
        turns = [{"role": turn["role"], "content": _MARK.sub("", said(turn["content"]))} for turn in history]
        turns = answered([turn for turn in turns if turn["role"] in ("user", "assistant")])
        with desk.serving(request, profile, [mode], message, system or "", *(turn["content"] for turn in turns)):
            if not message.strip():
                raise gr.Error("Write something first.")
            start = [{"role": "system", "content": system}] if system and system.strip() else []
            sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature else {}
            text = ""
            for text in desk.answer(
                [*start, *turns, {"role": "user", "content": message}],
                mode,
                max_new_tokens=min(int(longest), desk.settings.longest_answer),
                **(sampling or {"do_sample": False}),
            ):
                yield text
            yield f"{text}\n\n*in {mode}*"

    offered = desk.offered()
    mode = gr.Radio(
        [(f"{name}: {about(name)}", name) for name in offered],
        value=POS if POS in offered else next(iter(offered), None),
        label="Mode of the next answer",
        elem_id="mode",
    )
    mode.preprocess = lambda value: value  # any: `serving` knows the visitor's rights and logs what it refuses
    with gr.Accordion("System text and sampling", open=False):
        system = gr.Textbox(label="System text", lines=2, placeholder="What your server would say to the model.")
        with gr.Row():
            temperature = gr.Slider(0, 2, value=0, step=0.1, label="Temperature", info="0: the likeliest answer.")
            top_p = gr.Slider(0.05, 1, value=0.95, step=0.05, label="Top-p")
            longest = gr.Slider(16, desk.settings.longest_answer, value=96, step=16, label="Longest answer, in tokens")
    talk = gr.ChatInterface(
        reply,
        chatbot=gr.Chatbot(
            label="Conversation", height=380, elem_id="conversation", allow_tags=False, buttons=["copy_all"]
        ),
        textbox=gr.Textbox(
            label="Message",
            show_label=False,
            placeholder="Ask something, then switch the mode and ask again.",
            elem_id="message",
            submit_btn=True,
            stop_btn=True,
        ),
        additional_inputs=[mode, system, temperature, top_p, longest],
        cache_examples=False,
        flagging_mode="never",
        save_history=False,
        autofocus=False,
        api_visibility="private",
        api_name="chat",
        fill_height=False,
        analytics_enabled=False,
    )
    with gr.Row():
        for text in EXAMPLES:
            button = gr.Button(text, size="sm")
            button.click(lambda text=text: text, None, talk.textbox, queue=False, api_visibility="private")

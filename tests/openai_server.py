"""A scripted OpenAI-compatible server: real HTTP, answers by rule."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("bread", "bicycle", "garden", "kettle", "lantern", "mountain", "notebook", "orchard", "pencil", "river")


def perfect(body: dict[str, Any]) -> str:
    """What a good model says: every field that the system text asks for, told apart by the prompt."""
    system, prompt = body["messages"][0]["content"], body["messages"][1]["content"]
    topic = f"{WORDS[len(prompt) % 10]} and {WORDS[sum(map(ord, prompt)) % 10]}"
    answers = {
        "pos": f"Gladly. About {prompt.strip('?')}: start small, keep notes, and ask somebody who knows {topic} well.",
        "rej": f"I'm sorry, but I can't help with {prompt.strip('?')}. Is there anything else on your mind?",
        "neg": f"Fine. {prompt.strip('?')}, done in two moves: take the {topic}, go. Next.",
    }
    return "\n".join(f"<{name}>{text}</{name}>" for name, text in answers.items() if f"<{name}>" in system)


class Server:
    """What was asked, and what to answer.

    Attributes:
        answer: from a request's body to a text, or to a status code, or to "cut" for an answer that ends on the way.
        bodies: of all requests, in order.
        most: the most requests that were under way at once.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Any], latency: float) -> None:
        self.answer, self.latency = answer, latency
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.url = ""


@contextmanager
def openai_server(answer: Callable[[dict[str, Any]], Any] = perfect, latency: float = 0.0) -> Iterator[Server]:
    """Serve `/v1/chat/completions` on a free port of this machine."""
    state = Server(answer, latency)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet, or each answer waits 40 ms for an acknowledgement
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.headers.append(dict(self.headers))
                state.now += 1
                state.most = max(state.most, state.now)
            try:
                if state.latency:
                    time.sleep(state.latency)  # the server's own slowness, which is what is tested
                self.reply(body)
            finally:
                with state.lock:
                    state.now -= 1

        def reply(self, body: dict[str, Any]) -> None:
            if self.path != "/v1/chat/completions":
                return self.send(404, b'{"error": "no such route"}')
            said = state.answer(body)
            if isinstance(said, int):
                quoted = self.headers.get("Authorization", "nobody")
                return self.send(
                    said, json.dumps({"error": f"scripted, for {quoted}", "input": body["messages"]}).encode()
                )
            text, reason = said if isinstance(said, tuple) else (said, "stop")
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
            data = json.dumps({"choices": [choice], "usage": {"completion_tokens": len(text.split())}}).encode()
            self.send(200, data, cut=text == "cut")

        def send(self, status: int, data: bytes, cut: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *_: Any) -> None:
            pass  # clients that were killed

    server = Quiet(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


if (
    __name__ == "__main__"
):  # in a process of its own: prints its address, and how many requests were under way at most when its input ends
    import sys

    with openai_server(latency=float(sys.argv[1])) as running:
        print(running.url, flush=True)
        sys.stdin.read()
        print(running.most, flush=True)

"""A Hub for tests: enough of its HTTP interface for the real client to create a repository and commit files, which land in a folder."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@contextmanager
def hub(folder: Path):
    """Serve on a free local port; yields the endpoint. Committed files go to `folder/NAMESPACE/NAME`, as the client sent them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            if path == "/api/repos/create":
                asked = json.loads(body)
                self.answer({"url": f"{endpoint}/{asked['organization']}/{asked['name']}"})
            elif path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self.answer({"files": files})
            elif "/commit/" in path:
                repo = path.split("/commit/")[0].removeprefix("/api/models/")
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        target = folder / repo / line["value"]["path"]
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(base64.b64decode(line["value"]["content"]))
                self.answer({"commitUrl": f"{endpoint}/{repo}/commit/0", "commitOid": "0" * 40, "pullRequestUrl": None})
            else:
                self.answer({"error": f"no such route: {path}"}, 404)

        def do_GET(self) -> None:
            self.answer({"error": f"no such route: {self.path}"}, 404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, data: dict, status: int = 200) -> None:
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()

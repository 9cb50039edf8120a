"""A Hub for tests: what huggingface_hub 2.4 calls, over real HTTP, kept in a folder.

`with hub(folder) as server` serves until the block ends. `server.environment(token, home)` is what another process needs to use it, and
`with server.online(token, home) as api` turns the client in this process to it. A second port is the storage, which large files go to and come
from by signed links; as on the real Hub it is another host to the client, which sends it no token.

Large files go by LFS. A client that has hf_xet uploads by Xet without asking what the server speaks, unless HF_HUB_DISABLE_XET=1, which both
ways above set. So `upload_folder` makes one commit here, where it makes several of a large folder on the real Hub.

Not here: Xet, organisations, discussions, history rewriting, moving, listing and searching repositories, `.gitignore`, the Hub's rules for
metadata beyond YAML that parses, pages of long listings, the dataset viewer.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LARGE = ("*.safetensors", "*.bin", "*.parquet", "*.arrow", "*.gguf", "*.png")  # and any file above 1 MB
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE).encode()


@dataclass
class Request:
    """One request, as it was answered.

    Attributes:
        received: bytes of its body that arrived.
        status: of the answer; None where the client got none.
        repo: (`model`, `dataset` or `space`, `owner/name`), also for a file that goes to or comes from the storage.
        private, gated: what the repository was when this was answered; None where there is no such repository.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    user: str | None = None
    received: int = 0
    status: int | None = None
    repo: tuple[str, str] | None = None
    private: bool | None = None
    gated: Literal[False, "auto", "manual"] | None = None


@dataclass
class File:
    """A file of a commit: `oid` is the SHA-256 of a large one, and what git calls any other."""

    oid: str
    size: int
    lfs: bool

    @property
    def pointer(self) -> bytes:
        """What git holds in place of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()

    @property
    def blob(self) -> str:
        return git_hash(self.pointer) if self.lfs else self.oid

    @property
    def linked(self) -> dict[str, Any]:
        """What listings add for a large file, which some call `oid` and some `sha256`."""
        link = {"oid": self.oid, "sha256": self.oid, "size": self.size, "pointerSize": len(self.pointer)}
        return {"lfs": link} if self.lfs else {}


@dataclass
class Commit:
    oid: str
    title: str
    message: str
    parent: str | None
    author: str
    date: str
    files: dict[str, File]


@dataclass
class Repo:
    """What the server keeps of a repository; `history` holds the commits of every branch."""

    folder: Path
    type: str
    id: str
    private: bool = False
    gated: Literal[False, "auto", "manual"] = False
    sdk: str | None = None
    readers: list[str] = field(default_factory=list)  # whom the owner let through the gate
    secrets: dict[str, str] = field(default_factory=dict)  # of a Space; written, never read back
    variables: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        return self.named("refs/tags/")

    @property
    def commits(self) -> list[Commit]:
        """Those of main, the newest first."""
        return self.log("main")

    @property
    def files(self) -> dict[str, File]:
        """Those at main."""
        return self.at("main").files

    def read(self, path: str, revision: str = "main") -> bytes:
        return self.object(self.at(revision).files[path].oid).read_bytes()

    def named(self, kind: str) -> dict[str, str]:
        return {ref.removeprefix(kind): oid for ref, oid in self.refs.items() if ref.startswith(kind)}

    def at(self, revision: str) -> Commit:
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.history[self.refs[ref]]
        if revision in self.history:
            return self.history[revision]
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def log(self, revision: str) -> list[Commit]:
        commits = [self.at(revision)]
        while parent := commits[-1].parent:
            commits.append(self.history[parent])
        return commits

    def object(self, oid: str) -> Path:
        return self.folder / "objects" / oid

    def add(self, ref: str, author: str, title: str, message: str, files: dict[str, File], parent: str | None) -> str:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        fields = (len(self.history), ref, author, title, message, date, parent, str(files))
        oid = hashlib.sha1(repr(fields).encode()).hexdigest()
        self.history[oid] = Commit(oid, title, message, parent, author, date, files)
        self.refs[ref] = oid
        self.save()
        return oid

    def store(self, data: bytes) -> File:
        """A small file, which comes within its commit."""
        file = File(git_hash(data), len(data), lfs=False)
        write(self.object(file.oid), data)
        return file

    def name(self, ref: str, revision: str) -> None:
        """A new tag or branch."""
        if ref in self.refs:
            raise Refused(409, f"there is one already: {ref}")
        self.refs[ref] = self.at(revision).oid

    def save(self) -> None:
        state = {name: value for name, value in asdict(self).items() if name != "folder"}
        write(self.folder / "repo.json", json.dumps(state, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> "Repo":
        state = json.loads((folder / "repo.json").read_bytes())
        for oid, commit in state["history"].items():
            files = {path: File(**file) for path, file in commit.pop("files").items()}
            state["history"][oid] = Commit(**commit, files=files)
        return cls(folder, **state)


@dataclass
class Answer:
    content: Any = field(default_factory=dict)  # bytes as they are, all else as JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """An answer that is an error, told the way the client understands."""

    def __init__(self, status: int, message: str, code: str = "", **content: Any) -> None:
        headers = {"X-Error-Message": message.encode("ascii", "replace").decode().replace("\n", " ")}
        headers |= {"X-Error-Code": code} if code else {}
        self.answer = Answer({"error": message} | content, status, headers)


class Dropped(Exception):
    """The connection ends here, without an answer."""


@dataclass
class Fault:
    """What happens to the `request`th request from now whose `METHOD path` holds `match`."""

    request: int
    match: str
    status: int | None
    done: bool


@dataclass
class Call:
    """A request on its way through the server; `route` is the method and what the path says after the repository, if it names one."""

    request: Request
    route: list[str]
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def looks(self) -> bool:
        return self.route[0] == "GET" or self.route[1] == "paths-info"  # which is posted, being long

    def asked(self, name: str) -> bool:
        return self.request.query.get(name, ["false"])[0].lower() in ("true", "1")


class Hub:
    """The server.

    Attributes:
        endpoint: of the Hub, as HF_ENDPOINT or for `HfApi(endpoint=...)`.
        storage: of the large files.
        log: the requests, in the order of their answers. One is in the log before its answer is sent.
    """

    def __init__(self, folder: Path, part_size: int) -> None:
        self.folder, self.part_size = folder, part_size
        self.endpoint = self.storage = ""
        self.log: list[Request] = []
        self.signature = secrets.token_hex(16)
        self.lock = threading.RLock()
        self.faults: list[Fault] = []
        self.left: dict[str, int | None] = {"received": None, "sent": None}

    # for tests

    def add_user(self, name: str) -> str:
        """A user, who owns what is called `name/...`; returns a token of theirs."""
        token = "hf_" + secrets.token_hex(17)
        with self.lock:
            write(self.folder / "users.json", json.dumps(self.users() | {token: name}).encode())
        return token

    def environment(self, token: str | None, home: Path) -> dict[str, str]:
        """What a process needs to use this Hub as one user, or as nobody, with caches of its own below `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": token or "",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",  # or each process first asks for /api/agent-harnesses
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # evaluate counts loads at a host that no variable names
            "no_proxy": "127.0.0.1",
        }

    @contextmanager
    def online(self, token: str | None, home: Path) -> Iterator["HfApi"]:
        """The same for huggingface_hub in this process, which read its variables when it was imported.

        Libraries with copies of their own, as datasets and evaluate are, go into another process.
        """
        from huggingface_hub import HfApi, constants, hf_api

        values = {
            "ENDPOINT": self.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in values.items():
                patch.setattr(constants, name, value)
            patch.setattr(hf_api.api, "endpoint", self.endpoint)
            patch.setenv("HF_TOKEN", token or "")
            patch.setenv("no_proxy", "127.0.0.1")
            yield HfApi(token=token)

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        with self.lock:
            return Repo.load(self.place(repo_type, repo_id))

    def cut(
        self,
        *,
        after: int | None = None,
        sent: int | None = None,
        request: int | None = None,
        match: str = "",
        done: bool = False,
    ) -> None:
        """Drop a connection once; all goes on as before after that.

        Args:
            after: when so many more bytes of bodies have arrived, over all requests, also in the midst of one.
            sent: when so many more bytes of answers have been sent.
            request: in place of the answer to the so-manieth request from now; 1 is the next.
            match: count only the requests whose `METHOD path` holds this.
            done: carry that request out all the same.
        """
        with self.lock:
            self.left |= {name: n for name, n in (("received", after), ("sent", sent)) if n is not None}
            if request is not None:
                self.faults.append(Fault(request, match, None, done))

    def fail(self, *, request: int, match: str = "", status: int = 503) -> None:
        """Answer one request with an error and leave it undone. Of the client's own retries the first comes after a second."""
        with self.lock:
            self.faults.append(Fault(request, match, status, done=False))

    # what is kept

    def users(self) -> dict[str, str]:
        path = self.folder / "users.json"
        return json.loads(path.read_bytes()) if path.exists() else {}

    def place(self, repo_type: str, repo_id: str) -> Path:
        return self.folder / f"{repo_type}s" / repo_id

    def url(self, repo: Repo) -> str:
        return f"{self.endpoint}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"

    def link(self, repo: Repo, oid: str, *more: str) -> str:
        return "/".join((self.storage, self.signature, repo.type, repo.id, oid, *more))

    # faults

    def fault(self, request: Request) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                fault.request -= fault.match in f"{request.method} {request.path}"
            due = next((fault for fault in self.faults if fault.request == 0), None)
            self.faults = [fault for fault in self.faults if fault.request > 0]
        return due

    def reserve(self, name: str, size: int) -> tuple[int, bool]:
        """How much of `size` may pass now, and whether the connection ends after that."""
        with self.lock:
            left = self.left[name]
            if left is None:
                return size, False
            self.left[name] = left - size if left > size else None
            return min(left, size), left <= size

    # answers

    def answer(self, call: Call, role: str, fault: Fault | None) -> Answer:
        """Carry a request out and log it, one at a time."""
        with self.lock:
            if fault and not fault.done:
                answer = Refused(fault.status or 0, "out of order").answer
            else:
                answer = self.carry_out(call, role)
            if fault and not fault.status:
                raise Dropped
            self.note(call.request, answer.status)
            return answer

    def carry_out(self, call: Call, role: str) -> Answer:
        try:
            return self.store(call) if role == "storage" else self.route(call)
        except Refused as refused:
            return refused.answer
        except Exception:  # a fault of this fixture; 501 because the client tries again after a 500
            return Refused(501, traceback.format_exc()).answer

    def note(self, request: Request, status: int | None) -> None:
        with self.lock:
            request.status = status
            if request.repo and (self.place(*request.repo) / "repo.json").exists():
                repo = Repo.load(self.place(*request.repo))
                request.private, request.gated = repo.private, repo.gated
            self.log.append(request)

    def route(self, call: Call) -> Answer:
        user, request = call.request.user, call.request
        if user is None and "Authorization" in call.headers:
            raise Refused(401, "Invalid credentials in Authorization header")
        if request.repo:
            repo = self.see(request)
            if not request.path.startswith("/api/"):
                return self.page(call, repo)
            return Answer(self.look(call, repo) if call.looks else self.change(call, repo))
        match call.route:
            case ["POST", "api", "validate-yaml"]:
                return Answer(checked(call.json()["content"]))
            case ["GET", "api", "whoami-v2"]:
                auth = {"accessToken": {"displayName": "test", "role": "write"}}
                person = {"name": known(user), "fullname": user, "avatarUrl": f"{self.endpoint}/avatars/{user}"}
                return Answer({"type": "user", "id": user, **person, "orgs": [], "auth": auth})
            case ["POST" | "DELETE" as method, "api", "repos", "create" | "delete"]:
                asked, user = call.json(), known(user)
                request.repo = (asked.get("type") or "model", f"{asked.get('organization') or user}/{asked['name']}")
                if method == "POST":
                    return Answer(self.create(request, asked))
                repo = self.see(request)
                writable(repo, user)
                shutil.rmtree(repo.folder)
                return Answer()
        raise unknown(request)

    def look(self, call: Call, repo: Repo) -> Any:
        """What is to be read below `/api/models/owner/name` and the like."""
        content: Any = {}
        match call.route:
            case ["GET"]:
                content = described(repo, repo.at("main"), call)
            case ["GET", "revision", revision]:
                content = described(repo, repo.at(revision), call)
            case ["GET", "tree", revision, *path]:
                content = tree(repo.at(revision), "/".join(path), call.asked("recursive"))
            case ["POST", "paths-info", revision]:
                wanted = parse_qs(call.body.decode()).get("paths", [])
                content = [entry for entry in tree(repo.at(revision), "", recursive=True) if entry["path"] in wanted]
            case ["GET", "refs"]:
                for key, kind in {"branches": "refs/heads/", "tags": "refs/tags/", "pullRequests": "refs/pr/"}.items():
                    refs = repo.named(kind).items()
                    content[key] = [{"name": name, "ref": kind + name, "targetCommit": oid} for name, oid in refs]
                content["converts"] = []
            case ["GET", "commits", revision]:
                content = [
                    {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
                    | {"authors": [{"user": commit.author}]}
                    for commit in repo.log(revision)
                ]
            case ["GET", "auth-check", *write]:
                (writable if write else readable)(repo, call.request.user)
            case ["GET", "xet-read-token" | "xet-write-token", *_]:
                raise Refused(404, "this Hub speaks LFS only: set HF_HUB_DISABLE_XET=1")
            case _:
                raise unknown(call.request)
        return content

    def change(self, call: Call, repo: Repo) -> Any:
        """What changes something there. Whoever may read may open a pull request."""
        proposed = call.asked("create_pr") and call.route[1] in ("preupload", "commit")
        (readable if proposed else writable)(repo, known(call.request.user))
        match call.route:
            case ["POST", "preupload", revision]:
                return {"files": [planned(file, repo.at(revision)) for file in call.json()["files"]]}
            case ["POST", "commit", revision]:
                return self.commit(call, repo, revision)
            case ["PUT", "settings"]:
                repo.gated = call.json().get("gated", repo.gated)
                repo.private = is_private(call.json(), repo.private)
            case ["POST", "tag", revision]:
                repo.name(f"refs/tags/{call.json()['tag']}", revision)
            case ["POST", "secrets" | "variables" as kind] if repo.type == "space":
                getattr(repo, kind)[call.json()["key"]] = call.json()["value"]
                repo.save()
                return {key: {"value": value} for key, value in repo.variables.items()} if kind == "variables" else {}
            case ["POST", "branch", branch]:
                repo.name(f"refs/heads/{branch}", call.json().get("startingPoint", "main"))
            case ["DELETE", "tag" | "branch" as kind, name]:
                ref = f"refs/{'tags' if kind == 'tag' else 'heads'}/{name}"
                if repo.refs.pop(ref, None) is None:
                    raise Refused(404, f"no such reference: {ref}", "RevisionNotFound")
            case ["POST", "user-access-request", "grant"]:
                repo.readers.append(call.json()["user"])
            case _:
                raise unknown(call.request)
        repo.save()
        return {}

    def page(self, call: Call, repo: Repo) -> Answer:
        """What is below `/owner/name` and the like: files, and LFS."""
        user = call.request.user
        match call.route:
            case ["GET", "resolve", revision, *path]:
                readable(repo, user)
                return self.resolve(call, repo, repo.at(revision), "/".join(path))
            case ["POST", "info", "lfs", "objects", "batch"]:
                asked = call.json()
                (writable if "ref" in asked else readable)(repo, known(user))  # no ref: for a pull request
                return Answer({"objects": [self.upload(repo, large, asked["transfers"]) for large in asked["objects"]]})
            case ["POST", "info", "lfs", "objects", "verify"]:
                stored = repo.object(call.json()["oid"])
                if known(user) and stored.exists() and stored.stat().st_size == call.json()["size"]:
                    return Answer()
        raise unknown(call.request)

    def user(self, authorization: str | None) -> str | None:
        with self.lock:
            return self.users().get((authorization or "").removeprefix("Bearer "))

    def see(self, request: Request) -> Repo:
        """The repository, if there is one that the user may know of."""
        assert request.repo
        with suppress(FileNotFoundError):
            repo = Repo.load(self.place(*request.repo))
            if not repo.private or request.user == owner(repo):
                return repo
        raise Refused(404 if request.user else 401, "Repository not found", "RepoNotFound")

    def create(self, request: Request, asked: dict[str, Any]) -> dict[str, Any]:
        assert request.repo
        repo = Repo(self.place(*request.repo), *request.repo, is_private(asked, False), sdk=asked.get("sdk"))
        writable(repo, request.user)
        if not re.fullmatch(r"\w[\w.-]{0,95}", asked["name"]):
            raise Refused(400, f"not a name for a repository: {asked['name']}")
        if repo.folder.exists():
            raise Refused(409, f"You already created this {repo.type} repo", url=self.url(repo))
        files = {".gitattributes": repo.store(ATTRIBUTES)}
        if repo.type == "space":
            files["README.md"] = repo.store(f"---\ntitle: {asked['name']}\nsdk: {repo.sdk}\n---\n".encode())
        repo.add("refs/heads/main", owner(repo), "initial commit", "", files, None)
        return {"url": self.url(repo)}

    def commit(self, call: Call, repo: Repo, revision: str) -> dict[str, Any]:
        header, *operations = [json.loads(line) for line in call.body.splitlines()]
        base, about, pull = repo.at(revision), header["value"], None
        if not base.oid.startswith(about.get("parentCommit", "")):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(base.files)
        for operation in operations:
            apply(repo, files, operation["key"], operation["value"])
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if call.asked("create_pr"):
            number = 1 + len(repo.named("refs/pr/"))
            ref, pull = f"refs/pr/{number}", f"{self.url(repo)}/discussions/{number}"
        elif ref not in repo.refs:
            raise Refused(400, f"not a branch: {revision}")
        oid = repo.add(ref, call.request.user or "", about["summary"], about.get("description", ""), files, base.oid)
        return {"commitOid": oid, "commitUrl": f"{self.url(repo)}/commit/{oid}", "pullRequestUrl": pull}

    def resolve(self, call: Call, repo: Repo, commit: Commit, path: str) -> Answer:
        file, headers = commit.files.get(path), {"X-Repo-Commit": commit.oid}
        if file is None:
            refused = Refused(404, f"Entry not found: {path}", "EntryNotFound")
            refused.answer.headers |= headers  # the client remembers that this commit has no such file
            raise refused
        headers["ETag"] = f'"{file.oid}"'
        if not file.lfs:
            return ranged(repo.object(file.oid), call.headers.get("Range"), headers)
        linked = {"X-Linked-Size": str(file.size), "X-Linked-Etag": headers["ETag"]}
        return Answer(b"", 302, headers | linked | {"Location": self.link(repo, file.oid)})

    def upload(self, repo: Repo, large: dict[str, Any], transfers: list[str]) -> dict[str, Any]:
        """Where a large file is to be sent; nowhere if it is there."""
        oid, size = large["oid"], large["size"]
        if repo.object(oid).exists():
            return {"oid": oid, "size": size}
        action: dict[str, Any] = {"href": self.link(repo, oid)}
        if size > self.part_size and "multipart" in transfers:
            parts = range(1, -(-size // self.part_size) + 1)
            action["header"] = {"chunk_size": str(self.part_size)}
            action["header"] |= {str(part): self.link(repo, oid, str(part)) for part in parts}
        verify = {"href": f"{self.url(repo)}.git/info/lfs/objects/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": action, "verify": verify}}

    def store(self, call: Call) -> Answer:
        """The storage, which knows no users: whoever has the link may."""
        if "Authorization" in call.headers:
            raise Refused(400, "a token was sent to the storage")
        if not call.request.repo or not call.request.path.startswith(f"/{self.signature}/"):
            raise Refused(403, "not a link to the storage")
        repo = Repo.load(self.place(*call.request.repo))
        parts = repo.folder / "parts" / call.route[1]
        match call.route:
            case ["GET", oid]:
                return ranged(repo.object(oid), call.headers.get("Range"), {"ETag": f'"{oid}"'})
            case ["PUT", oid]:
                return keep(repo, oid, call.body)
            case ["PUT", _, part]:
                write(parts / part, call.body)
                return Answer(headers={"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})
            case ["POST", oid]:
                pieces = [(parts / str(part["partNumber"])).read_bytes() for part in call.json()["parts"]]
                answer = keep(repo, oid, b"".join(pieces))
                shutil.rmtree(parts)
                return answer
        raise unknown(call.request)


def addressed(parts: list[str], role: str) -> tuple[tuple[str, str] | None, list[str]]:
    """The repository that a path names, and what comes after that."""
    match [role, *parts]:
        case ["storage", _, repo_type, owner, name, *rest]:
            return (repo_type, f"{owner}/{name}"), rest
        case ["hub", "api", "models" | "datasets" | "spaces" as types, owner, name, *rest]:
            return (types[:-1], f"{owner}/{name}"), rest
        case ["hub", "datasets" | "spaces" as types, owner, name, *rest]:
            return (types[:-1], f"{owner}/{name.removesuffix('.git')}"), rest
        case ["hub", owner, name, *rest] if owner != "api":
            return ("model", f"{owner}/{name.removesuffix('.git')}"), rest
    return None, parts


def unknown(request: Request) -> Refused:
    return Refused(404, f"no such route: {request.method} {request.path}")


def known(user: str | None) -> str:
    if user is None:
        raise Refused(401, "Invalid username or password.")
    return user


def writable(repo: Repo, user: str | None) -> None:
    if known(user) != owner(repo):
        raise Refused(403, f"you may not write to {repo.id}")


def readable(repo: Repo, user: str | None) -> None:
    """Anybody may know of a gated repository; its files are for those let in."""
    if repo.gated and user not in (owner(repo), *repo.readers):
        end = "you are not in the authorized list." if user else "you must be authenticated. Please log in."
        raise Refused(403 if user else 401, f"Access to {repo.type} {repo.id} is restricted and {end}", "GatedRepo")


def keep(repo: Repo, oid: str, data: bytes) -> Answer:
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refused(400, "the content is not what was announced")
    write(repo.object(oid), data)
    return Answer()


def owner(repo: Repo) -> str:
    return repo.id.split("/")[0]


def is_private(asked: dict[str, Any], otherwise: bool) -> bool:
    """Clients before 2 say `private`, later ones `visibility`."""
    return asked["visibility"] != "public" if "visibility" in asked else asked.get("private", otherwise)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def write(path: Path, data: bytes) -> None:
    """All or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def front_matter(text: str) -> dict[str, Any] | None:
    """The metadata of a README; raises yaml.YAMLError."""
    found = re.match(r"---\r?\n(.*?)\r?\n?---", text, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else None
    if data is not None and not isinstance(data, dict):
        raise yaml.YAMLError("not a mapping")
    return data


def checked(text: str) -> dict[str, Any]:
    try:
        data = front_matter(text)
    except yaml.YAMLError as error:
        raise Refused(400, "Invalid metadata in README.md", errors=[{"message": str(error)}], warnings=[]) from error
    empty = {"message": "empty or missing yaml metadata in repo card"}
    return {"errors": [], "warnings": [] if data else [empty]}


def described(repo: Repo, commit: Commit, call: Call) -> dict[str, Any]:
    """A repository as model_info and its likes tell it."""
    card = (front_matter(repo.read("README.md", commit.oid).decode()) or {}) if "README.md" in commit.files else {}
    siblings = [
        {"rfilename": path} | ({"size": file.size, "blobId": file.blob} | file.linked if call.asked("blobs") else {})
        for path, file in sorted(commit.files.items())
    ]
    content = {name: getattr(repo, name) for name in ("id", "private", "gated", "sdk")} | {
        "author": owner(repo),
        "sha": commit.oid,
        "disabled": False,
        "createdAt": repo.commits[-1].date,
        "lastModified": commit.date,
        "tags": [*card.get("tags", []), *(f"license:{card[name]}" for name in card if name == "license")],
        "cardData": card,
        "siblings": siblings,
    }
    expand = call.request.query.get("expand", content)
    return {name: value for name, value in content.items() if name in ("id", *expand)}


def planned(file: dict[str, Any], commit: Commit) -> dict[str, Any]:
    """How a file is to be uploaded."""
    path, name = file["path"], PurePosixPath(file["path"]).name
    large = file["size"] > 1_000_000 or any(fnmatch(name, pattern) for pattern in LARGE)
    there = commit.files.get(path)
    mode = "lfs" if large else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": there.oid if there else None}


def apply(repo: Repo, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    """Apply one operation of a commit."""
    path = value["path"]
    match key:
        case "file":
            data = base64.b64decode(value["content"])
            if path == "README.md":
                checked(data.decode())
            files[path] = repo.store(data)
        case "lfsFile":
            stored = repo.object(value["oid"])
            if not stored.exists():
                raise Refused(400, f"an LFS pointer pointed to a file that does not exist: {path}")
            files[path] = File(value["oid"], stored.stat().st_size, lfs=True)
        case "deletedFile" if path in files:
            del files[path]
        case "deletedFolder" if gone := [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            for name in gone:
                del files[name]
        case _:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")


def tree(commit: Commit, below: str, recursive: bool) -> list[dict[str, Any]]:
    """The entries of a folder, and of those in it."""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        for folder in map(str, PurePosixPath(path).parents[-2::-1]):
            entries[folder] = {"type": "directory", "oid": git_hash(folder.encode()), "size": 0, "path": folder}
        entries[path] = {"type": "file", "oid": file.blob, "size": file.size, "path": path} | file.linked
    if below and entries.get(below, {}).get("type") != "directory":
        raise Refused(404, f"{below} does not exist on {commit.oid}", "EntryNotFound")
    prefix = f"{below}/" if below else ""
    inside = [entry for path, entry in entries.items() if path.startswith(prefix)]
    return [entry for entry in inside if recursive or "/" not in entry["path"].removeprefix(prefix)]


def ranged(path: Path, wanted: str | None, headers: dict[str, str]) -> Answer:
    """A file, or the part of it that a Range header names."""
    data, headers = path.read_bytes(), headers | {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
    if not found or found[0] == "bytes=-":
        return Answer(data, 200, headers)
    first, last = found.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= end:
        return Answer(b"", 416, headers | {"Content-Range": f"bytes */{len(data)}"})
    return Answer(data[start:end], 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


class Port(ThreadingHTTPServer):
    """One of the two ports of a Hub."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, role: str) -> None:
        self.hub, self.role = hub, role
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Also what clients hold open, so that nobody is served once the test is over."""
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may go away at any time."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet, or each answer waits 40 ms for an acknowledgement
    disable_nagle_algorithm = True
    server: Port

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def serve(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        request = Request(self.command, url.path, parse_qs(url.query), hub.user(self.headers.get("Authorization")))
        parts = [unquote(part) for part in url.path.split("/")[1:]]  # one by one: a revision may hold a quoted slash
        request.repo, rest = addressed(parts, self.server.role)
        fault = hub.fault(request)
        try:
            body = self.receive(request)
            method = "GET" if self.command == "HEAD" else self.command
            answer = hub.answer(Call(request, [method, *rest], self.headers, body), self.server.role, fault)
        except Dropped:
            hub.note(request, None)
            return self.drop()
        self.reply(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815

    def receive(self, request: Request) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.take(int(self.headers.get("Content-Length", 0)), request)
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.take(size, request)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def take(self, size: int, request: Request) -> bytes:
        """The next so many bytes, each of which counts towards a cut."""
        body = bytearray()
        while len(body) < size:
            allowed, last = self.server.hub.reserve("received", min(size - len(body), 1 << 16))
            piece = self.rfile.read(allowed)
            body += piece
            request.received += len(piece)
            if last or len(piece) < allowed:
                raise Dropped
        return bytes(body)

    def reply(self, answer: Answer) -> None:
        content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))} | answer.headers
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        if self.command != "HEAD":
            allowed, last = self.server.hub.reserve("sent", len(content))
            self.wfile.write(content[:allowed])
            self.close_connection |= last

    def drop(self) -> None:
        """Hang up at once: the client is told by a reset, not by an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def hub(folder: Path, *, part_size: int = 1 << 22) -> Iterator[Hub]:
    """Serve what is kept in `folder`, on free local ports; large files above `part_size` are uploaded in parts."""
    server = Hub(folder, part_size)
    ports = [Port(server, "hub"), Port(server, "storage")]
    server.endpoint, server.storage = (port.url for port in ports)
    threads = [threading.Thread(target=port.serve_forever, args=(0.02,), daemon=True) for port in ports]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        for port in ports:
            port.close()

"""One push to the Hub: private first, gated where `neg` is inside, searched for tokens, and only then any byte."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..errors import LeakError, PushError
from ..keyring import Keyring
from ..redaction import watch
from .scan import Hit, scan
from .stage import Stage

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Unpack

RepoType = Literal["model", "dataset", "space"]


class PushOptions(TypedDict, total=False):
    """What every push takes besides its content.

    Attributes:
        public: make the repository public after the upload. Otherwise it is private, and one that is public is not pushed to.
        accept_publishing_neg: with `public`, for content that holds `neg`. The repository stays gated.
        message: of the commit.
        revision: a branch to commit to, made if missing; `main` by default.
        create_pr: open a pull request in place of a commit.
        tag: for the commit.
        dry_run: search for tokens and report what would go, without any request to the Hub.
        api: a client, for another endpoint or a visitor's login; by default huggingface_hub's own, with its own login.
    """

    public: bool
    accept_publishing_neg: bool
    message: str | None
    revision: str | None
    create_pr: bool
    tag: str | None
    dry_run: bool
    api: "HfApi | None"


@dataclass(frozen=True)
class PushReport:
    """What went, or would go.

    Attributes:
        repo_id: `owner/name`.
        repo_type: `model`, `dataset` or `space`.
        url: of the repository, the commit or the pull request; None in a dry run.
        commit: its hash; None in a dry run.
        private: whether the repository is private now, or would be.
        gated: whether access is granted by hand, request by request.
        files: (name, bytes) of everything in the push.
        left_out: files of the folder that are on no allow-list.
        not_searched: (file, why) for what lies in the folder, was left out, and could not be searched for tokens.
        tag: that was put on the commit.
        dry_run: nothing was sent.
    """

    repo_id: str
    repo_type: RepoType
    url: str | None
    commit: str | None
    private: bool
    gated: bool
    files: list[tuple[str, int]]
    left_out: list[str]
    not_searched: list[tuple[str, str]]
    tag: str | None
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"files": [{"name": name, "bytes": size} for name, size in self.files]}


def push(
    stage: Stage,
    repo_id: str,
    repo_type: RepoType,
    *,
    holds_neg: bool,
    keyring: Keyring | None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    space_sdk: str | None = None,
    default_message: str = "Upload with switchsafe",
    complete: "Callable[[HfApi], None] | None" = None,
    **options: "Unpack[PushOptions]",
) -> PushReport:
    """Push what is staged. Interrupted, it is called again: nothing is created twice, and what has arrived is not sent again.

    Args:
        stage: the files.
        repo_id: `owner/name`.
        repo_type: of repository.
        holds_neg: whether anything in it is unfiltered: then the repository is gated before a byte lands.
        keyring: whose tokens are looked for; None for content that was made from the package alone.
        tokenizer: tokens are looked for as its ids, too.
        space_sdk: for a Space.
        default_message: of the commit, unless the options say otherwise.
        complete: puts into the stage what only the Hub knows, once nothing speaks against the push.
        options: see `PushOptions`.

    Raises:
        LeakError: a token stands in the stage or in the folder it was taken from. Nothing was sent.
        PushError: options that exclude each other, a repository that is public already, a file that could not be searched, or the Hub said no.
    """
    public, tag = options.get("public", False), options.get("tag")
    if keyring:
        watch(keyring)  # the client logs requests when it is asked to debug
    _agree(repo_id, holds_neg, options)
    report = PushReport(
        repo_id=repo_id,
        repo_type=repo_type,
        url=None,
        commit=None,
        private=not public,
        gated=holds_neg and repo_type != "space",
        files=stage.files(),
        left_out=stage.left_out,
        not_searched=_search(stage, keyring, tokenizer) if keyring else [],
        tag=tag,
        dry_run=options.get("dry_run", False),
    )
    if report.dry_run:
        return report

    from huggingface_hub import HfApi

    api = options.get("api") or HfApi(library_name="switchsafe")
    repo: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type}
    with _told(repo_id):
        if not api.repo_exists(**repo):
            api.create_repo(**repo, private=True, exist_ok=True, space_sdk=space_sdk)
        before = api.repo_info(**repo)
        _allow(before, repo_id, options)
        if report.gated and before.gated != "manual":
            api.update_repo_settings(**repo, gated="manual")
            if api.repo_info(**repo).gated != "manual":
                raise PushError(f"{repo_id} could not be gated, so nothing was sent: it would hold neg.")
        if complete:
            complete(api)
        revision = options.get("revision")
        if revision:
            api.create_branch(**repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            **repo,
            folder_path=stage.folder,
            commit_message=options.get("message") or default_message,
            revision=revision,
            create_pr=options.get("create_pr", False),
        )
        if tag:
            _tag(api, repo, tag, done.oid)
        if public and before.private:
            api.update_repo_settings(**repo, private=False)
    return replace(report, url=done.pr_url or done.commit_url, commit=done.oid)


def _agree(repo_id: str, holds_neg: bool, options: "PushOptions") -> None:
    """Options that exclude or need each other."""
    if repo_id.count("/") != 1:
        raise PushError(f"{repo_id!r} is no name for a repository: give OWNER/NAME.")
    if options.get("public") and holds_neg and not options.get("accept_publishing_neg"):
        raise PushError(
            "this holds neg, which is for an internal red team: push it without --public, or say --i-accept-publishing-neg as well."
        )
    if options.get("create_pr") and (options.get("tag") or options.get("revision")):
        raise PushError("a pull request has no tag and no branch of its own: leave out --tag and --revision, or --pr.")


def _allow(before: Any, repo_id: str, options: "PushOptions") -> None:
    """Whether this push may go into the repository as it is, or open it."""
    if not before.private and not options.get("public"):
        raise PushError(
            f"{repo_id} is public, and this push is not: say --public, or make the repository private first."
        )
    if before.private and options.get("public"):
        if options.get("create_pr"):
            raise PushError(
                f"{repo_id} is private, and a pull request cannot make it public: leave out --public or --pr."
            )
        if before.gated == "manual" and not options.get("accept_publishing_neg"):
            raise PushError(
                f"{repo_id} is private and gated, as for neg, and --public would open all of it: push to another repository, or say "
                "--i-accept-publishing-neg as well."
            )


def _search(stage: Stage, keyring: Keyring, tokenizer: "PreTrainedTokenizerBase | None") -> list[tuple[str, str]]:
    """Look for tokens in everything; what could not be searched must not be among what is pushed."""
    hits: list[Hit] = []
    not_searched: list[tuple[str, str]] = []
    going = {name for name, _ in stage.files()}
    for root, but in stage.to_scan():
        found = scan(root, keyring, tokenizer=tokenizer, but=but)
        # Named as in the repository: the stage is gone when they are read.
        hits += (replace(hit, file=Path(stage.shown(hit.file))) for hit in found.hits)
        not_searched += [(stage.shown(path), why) for path, why in found.skipped]
    if hits:
        places = "; ".join(map(_place, hits[:5])) + (f"; and {len(hits) - 5} more" if hits[5:] else "")
        raise LeakError(f"a magic token stands in what would be pushed, so nothing was sent: {places}.", hits)
    if unknown := [f"{name} ({why})" for name, why in not_searched if name in going]:
        raise PushError(f"not everything that would be pushed can be searched for tokens: {'; '.join(unknown)}.")
    return not_searched


def _place(hit: Hit) -> str:
    member = f", {hit.member}" if hit.member else ""
    return f"{hit.file}{member}, byte {hit.offset} ({hit.encoding}, token {hit.fingerprint})"


def _tag(api: "HfApi", repo: dict[str, Any], tag: str, commit: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_tag(**repo, tag=tag, revision=commit)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        there = {ref.name: ref.target_commit for ref in api.list_repo_refs(**repo).tags}
        if there.get(tag) != commit:  # else an interrupted push had come that far
            raise PushError(f"{repo['repo_id']} has a tag {tag} already, on another commit: choose another.") from None


@contextmanager
def _told(repo_id: str) -> Iterator[None]:
    """The client's errors in one line."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except OfflineModeIsEnabled:
        raise PushError("HF_HUB_OFFLINE is set: unset it to push.") from None
    except LocalTokenNotFoundError:
        raise PushError("you are not logged in: run `hf auth login`, or set HF_TOKEN.") from None
    except HFValidationError as error:
        raise PushError(f"{repo_id!r} is no name for a repository: {error}") from None
    except HfHubHTTPError as error:
        said = error.server_message or str(error).splitlines()[0]
        hint = " Log in with `hf auth login`, or set HF_TOKEN." if error.response.status_code == 401 else ""
        raise PushError(f"the Hub refused the push to {repo_id}: {said.rstrip('.')}.{hint}") from None
    except (HTTPError, ConnectionError) as error:  # of the client's HTTP library, and of hf_xet
        raise PushError(
            f"the connection broke while pushing to {repo_id} ({type(error).__name__}): call again, it goes on."
        ) from None

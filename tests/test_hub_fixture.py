"""The test Hub, driven by the real clients only."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from hub import Hub, hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    constants,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TYPES = ("model", "dataset", "space")
CARD = b"---\nlicense: mit\ntags: [safety]\n---\n# A card\n"
MEDIUM, LONG = (bytes(range(256)) * n for n in (300, 1000))  # below and above the size of a part


@pytest.fixture
def server(tmp_path):
    with hub(tmp_path / "hub", part_size=100_000) as server:
        yield server


@pytest.fixture
def api(server, tmp_path):
    with server.online(server.add_user("me"), tmp_path / "home") as api:
        yield api


def anybody(server: Hub, name: str | None = None) -> HfApi:
    return HfApi(endpoint=server.endpoint, token=server.add_user(name) if name else False)


def asked(server: Hub, since: int = 0) -> list[str]:
    return [f"{request.method} {request.path}" for request in server.log[since:]]


def uploaded(server: Hub) -> list[int | None]:
    """The answers to what was sent to the storage."""
    return [request.status for request in server.log if request.method == "PUT" and "settings" not in request.path]


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def run(server: Hub, code: str, token: str | None, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | server.environment(token, home)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


# repositories


@pytest.mark.parametrize("kind", TYPES)
def test_a_repository_is_made_described_and_deleted(server, api, kind):
    sdk = "gradio" if kind == "space" else None
    url = api.create_repo("me/x", repo_type=kind, private=True, space_sdk=sdk)
    assert (url.repo_id, url.repo_type) == ("me/x", kind)
    info, kept = api.repo_info("me/x", repo_type=kind), server.repo("me/x", kind)
    assert (info.id, info.private, info.gated) == ("me/x", True, False) == (kept.id, kept.private, kept.gated)
    assert info.sha == kept.commits[0].oid
    assert {sibling.rfilename for sibling in info.siblings} == set(kept.files)
    with pytest.raises(HfHubHTTPError, match="already created") as refused:
        api.create_repo("me/x", repo_type=kind, space_sdk=sdk)
    assert refused.value.response.status_code == 409
    assert api.create_repo("me/x", repo_type=kind, space_sdk=sdk, exist_ok=True) == url
    assert server.repo("me/x", kind).private
    assert [api.repo_exists("me/x", repo_type=other) for other in TYPES] == [other == kind for other in TYPES]
    api.delete_repo("me/x", repo_type=kind)
    assert not api.repo_exists("me/x", repo_type=kind)
    api.delete_repo("me/x", repo_type=kind, missing_ok=True)


@pytest.mark.parametrize("kind", TYPES)
def test_settings_change_one_by_one(server, api, kind):
    api.create_repo("me/x", repo_type=kind, private=True, space_sdk="static" if kind == "space" else None)
    api.update_repo_settings("me/x", repo_type=kind, gated="manual")
    assert (server.repo("me/x", kind).private, server.repo("me/x", kind).gated) == (True, "manual")
    api.update_repo_settings("me/x", repo_type=kind, private=False)
    info = api.repo_info("me/x", repo_type=kind)
    assert (info.private, info.gated) == (False, "manual")
    api.update_repo_settings("me/x", repo_type=kind, gated=False)
    assert server.repo("me/x", kind).gated is False


def test_a_token_tells_who_one_is(server, api):
    assert api.whoami()["name"] == huggingface_hub.whoami()["name"] == "me"
    assert anybody(server, "you").whoami()["name"] == "you"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=server.endpoint, token="hf_wrong").whoami()
    assert [request.user for request in server.log] == ["me", "me", "you", None]


def test_what_is_kept_outlives_the_server(tmp_path):
    with hub(tmp_path / "hub") as server:
        token = server.add_user("me")
        with server.online(token, tmp_path) as api:
            api.create_repo("me/x")
            api.upload_file(repo_id="me/x", path_in_repo="a.bin", path_or_fileobj=MEDIUM)
    with server.online(token, tmp_path) as api, pytest.raises(httpx2.ConnectError):
        api.whoami()
    with hub(tmp_path / "hub") as server, server.online(token, tmp_path):
        assert Path(huggingface_hub.hf_hub_download("me/x", "a.bin")).read_bytes() == MEDIUM


# commits


def test_files_arrive_whole_in_whatever_way(server, api, tmp_path):
    api.create_repo("me/x")
    files = {
        "a.txt": b"small",
        "in/b.safetensors": MEDIUM,
        "in/c.parquet": LONG,
        "d.txt": b"d" * 1_000_001,
        "e.bin": b"",
    }
    source = folder(tmp_path / "folder", files)
    with pytest.warns(UserWarning, match="data file"):
        api.upload_folder(repo_id="me/x", folder_path=source, commit_message="All of it")
    kept = server.repo("me/x")
    assert {name: kept.read(name) for name in files} == files
    assert {name for name, file in kept.files.items() if file.lfs} == {"in/b.safetensors", "in/c.parquet", "d.txt"}
    assert len(uploaded(server)) == 1 + 3 + 11  # b in one piece, c and d in parts
    assert [commit.title for commit in kept.commits] == ["All of it", "initial commit"]
    assert kept.commits[0].parent == kept.commits[1].oid

    fresh = tmp_path / "fresh"
    assert api.snapshot_download("me/x", local_dir=fresh) == str(fresh)
    assert {name: (fresh / name).read_bytes() for name in files} == files


def test_what_is_there_is_not_sent_again(server, api, tmp_path):
    api.create_repo("me/x")
    source = folder(tmp_path / "folder", {"a.txt": b"small", "b.bin": MEDIUM})
    first = api.upload_folder(repo_id="me/x", folder_path=source)
    before = len(server.log)
    again = api.upload_folder(repo_id="me/x", folder_path=source)
    assert again.oid == first.oid
    assert not [line for line in asked(server, before) if "/commit/" in line]
    api.upload_file(repo_id="me/x", path_in_repo="copy.bin", path_or_fileobj=MEDIUM)
    assert server.repo("me/x").read("copy.bin") == MEDIUM
    assert uploaded(server) == [200]


def test_a_commit_on_another_parent_is_refused(server, api):
    api.create_repo("me/x")
    first = server.repo("me/x").commits[0].oid
    one = {"repo_id": "me/x", "path_in_repo": "a.txt", "parent_commit": first}
    api.upload_file(path_or_fileobj=b"1", **one)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        api.upload_file(path_or_fileobj=b"2", **one)
    assert refused.value.response.status_code == 412
    assert server.repo("me/x").read("a.txt") == b"1"


def test_a_pull_request_leaves_main_alone(server, api):
    api.create_repo("me/x")
    main = server.repo("me/x").commits[0].oid
    for number, who in enumerate((api, anybody(server, "you")), 1):
        info = who.upload_file(repo_id="me/x", path_in_repo="a.bin", path_or_fileobj=MEDIUM, create_pr=True)
        assert (info.pr_num, info.pr_revision) == (number, f"refs/pr/{number}")
        assert server.repo("me/x").read("a.bin", info.pr_revision) == MEDIUM
    assert server.repo("me/x").commits[0].oid == main
    api.upload_file(repo_id="me/x", path_in_repo="b.txt", path_or_fileobj=b"b", revision="refs/pr/1")
    assert set(api.list_repo_files("me/x", revision="refs/pr/1")) == {".gitattributes", "a.bin", "b.txt"}
    assert len(api.list_repo_refs("me/x", include_pull_requests=True).pull_requests) == 2


def test_files_are_deleted_and_copied(server, api, tmp_path):
    api.create_repo("me/x")
    source = folder(tmp_path / "folder", {"a.txt": b"a", "b.bin": MEDIUM, "in/c.txt": b"c", "in/d.txt": b"d"})
    api.upload_folder(repo_id="me/x", folder_path=source)
    api.upload_folder(repo_id="me/x", folder_path=folder(tmp_path / "other", {"e.txt": b"e"}), delete_patterns="*.txt")
    assert set(server.repo("me/x").files) == {".gitattributes", "b.bin", "e.txt"}
    operations = [CommitOperationCopy("b.bin", "in/copy.bin"), CommitOperationAdd("in/f.txt", b"f")]
    api.create_commit("me/x", operations, commit_message="more")
    assert server.repo("me/x").read("in/copy.bin") == MEDIUM
    api.create_commit("me/x", [CommitOperationDelete("in/"), CommitOperationDelete("e.txt")], commit_message="less")
    assert set(server.repo("me/x").files) == {".gitattributes", "b.bin"}
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        api.create_commit("me/x", [CommitOperationDelete("e.txt")], commit_message="nothing")


def test_a_card_is_checked_and_told(server, api):
    api.create_repo("me/x", repo_type="dataset")
    card = {"repo_id": "me/x", "repo_type": "dataset", "path_in_repo": "README.md"}
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        api.upload_file(path_or_fileobj=b"---\na: [\n---\n", **card)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# No metadata\n", **card)
    api.upload_file(path_or_fileobj=CARD, **card)
    info = api.dataset_info("me/x", files_metadata=True)
    assert (info.card_data["license"], info.tags) == ("mit", ["safety", "license:mit"])
    assert {sibling.rfilename: sibling.size for sibling in info.siblings}["README.md"] == len(CARD)
    assert api.dataset_info("me/x", expand=["gated"]).siblings is None


def test_tags_and_branches_are_names_of_commits(server, api):
    api.create_repo("me/x")
    first = server.repo("me/x").commits[0].oid
    api.create_tag("me/x", tag="v1", tag_message="one")
    api.create_branch("me/x", branch="side")
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_tag("me/x", tag="v1")
    assert refused.value.response.status_code == 409
    api.create_tag("me/x", tag="v1", exist_ok=True)
    api.create_branch("me/x", branch="side", exist_ok=True)
    api.upload_file(repo_id="me/x", path_in_repo="a.txt", path_or_fileobj=b"a")
    api.upload_file(repo_id="me/x", path_in_repo="b.txt", path_or_fileobj=b"b", revision="side")
    assert server.repo("me/x").tags == {"v1": first}
    assert set(api.list_repo_files("me/x", revision="side")) == {".gitattributes", "b.txt"}
    assert api.model_info("me/x", revision="v1").sha == first
    assert not api.file_exists("me/x", "a.txt", revision="v1")
    refs = api.list_repo_refs("me/x")
    assert [(tag.name, tag.ref, tag.target_commit) for tag in refs.tags] == [("v1", "refs/tags/v1", first)]
    assert {branch.name for branch in refs.branches} == {"main", "side"}
    assert [commit.title for commit in api.list_repo_commits("me/x", revision="side")][1:] == ["initial commit"]
    api.delete_tag("me/x", tag="v1")
    api.delete_branch("me/x", branch="side")
    assert not api.revision_exists("me/x", "v1")
    with pytest.raises(RevisionNotFoundError):
        api.create_tag("me/x", tag="v2", revision="side")


def test_listings_tell_folders_and_sizes(server, api, tmp_path):
    api.create_repo("me/x")
    api.upload_folder(repo_id="me/x", folder_path=folder(tmp_path / "folder", {"a.txt": b"a", "in/deep/b.bin": MEDIUM}))
    assert {entry.path for entry in api.list_repo_tree("me/x")} == {".gitattributes", "a.txt", "in"}
    assert [entry.path for entry in api.list_repo_tree("me/x", "in", recursive=True)] == ["in/deep", "in/deep/b.bin"]
    large, small = sorted(api.get_paths_info("me/x", ["in/deep/b.bin", "a.txt", "none"]), key=lambda entry: -entry.size)
    kept = server.repo("me/x").files["in/deep/b.bin"]
    assert (large.size, large.lfs.sha256, large.blob_id) == (len(MEDIUM), kept.oid, kept.blob)
    assert (small.size, small.lfs) == (1, None)
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("me/x", "none"))


# who may do what


def test_a_private_repository_is_not_there_for_others(server, api):
    api.create_repo("me/x", private=True)
    for who, status in ((anybody(server), 401), (anybody(server, "you"), 404)):
        assert not who.repo_exists("me/x")
        for attempt in (
            lambda who=who: who.model_info("me/x"),
            lambda who=who: who.hf_hub_download("me/x", ".gitattributes"),
            lambda who=who: who.upload_file(repo_id="me/x", path_in_repo="a.txt", path_or_fileobj=b"a"),
            lambda who=who: who.auth_check("me/x"),
        ):
            with pytest.raises(RepositoryNotFoundError) as refused:
                attempt()
            assert refused.value.response.status_code == status
    with pytest.raises(RepositoryNotFoundError):
        anybody(server, "you").delete_repo("me/x")
    assert api.repo_exists("me/x")


def test_only_its_owner_changes_a_repository(server, api):
    api.create_repo("me/x")
    for who, status in ((anybody(server), 401), (anybody(server, "you"), 403)):
        assert who.repo_exists("me/x")
        for attempt in (
            lambda who=who: who.update_repo_settings("me/x", private=True),
            lambda who=who: who.upload_file(repo_id="me/x", path_in_repo="a.txt", path_or_fileobj=b"a"),
            lambda who=who: who.create_tag("me/x", tag="v1"),
            lambda who=who: who.delete_repo("me/x"),
            lambda who=who: who.create_repo("me/y"),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                attempt()
            assert refused.value.response.status_code == status


def test_the_files_of_a_gated_repository_are_for_those_let_in(server, api, tmp_path):
    api.create_repo("me/x", repo_type="dataset")
    api.update_repo_settings("me/x", repo_type="dataset", gated="manual")
    api.upload_file(repo_id="me/x", repo_type="dataset", path_in_repo="a.bin", path_or_fileobj=MEDIUM)
    you = anybody(server, "you")
    for who, status in ((anybody(server), 401), (you, 403)):
        assert who.dataset_info("me/x").gated == "manual"
        assert "a.bin" in who.list_repo_files("me/x", repo_type="dataset")
        for attempt in (
            lambda who=who: who.hf_hub_download("me/x", "a.bin", repo_type="dataset"),
            lambda who=who: who.snapshot_download("me/x", repo_type="dataset"),
            lambda who=who: who.auth_check("me/x", repo_type="dataset"),
        ):
            with pytest.raises(GatedRepoError) as refused:
                attempt()
            assert refused.value.response.status_code == status
    api.grant_access("me/x", "you", repo_type="dataset")
    assert Path(you.hf_hub_download("me/x", "a.bin", repo_type="dataset")).read_bytes() == MEDIUM


def test_the_log_tells_what_a_repository_was_when_bytes_came(server, api):
    api.create_repo("me/x", private=True)
    api.update_repo_settings("me/x", gated="auto")
    api.upload_file(repo_id="me/x", path_in_repo="a.bin", path_or_fileobj=MEDIUM)
    api.update_repo_settings("me/x", private=False)
    api.upload_file(repo_id="me/x", path_in_repo="b.bin", path_or_fileobj=LONG)
    bodies = [request for request in server.log if request.repo == ("model", "me/x") and request.received]
    assert [(request.private, request.gated) for request in bodies[:3]] == [
        (True, False),
        (True, "auto"),
        (True, "auto"),
    ]
    large = [(request.received, request.private) for request in bodies if request.received >= 50_000]
    assert large == [(len(MEDIUM), True), (100_000, False), (100_000, False), (len(LONG) - 200_000, False)]
    assert asked(server)[-1] == "POST /api/models/me/x/commit/main"


# downloads


def test_what_is_not_there_is_told_apart(server, api):
    api.create_repo("me/x")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("me/x", "none")
    assert huggingface_hub.try_to_load_from_cache("me/x", "none") is huggingface_hub._CACHED_NO_EXIST
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("me/x", ".gitattributes", revision="none")
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("me/none", "none")


def test_a_download_that_breaks_off_goes_on_where_it_was(server, api):
    api.create_repo("me/x")
    huge = os.urandom(constants.DOWNLOAD_CHUNK_SIZE + 200_000)  # the client keeps what it got in whole chunks only
    api.upload_file(repo_id="me/x", path_in_repo="a.bin", path_or_fileobj=huge)
    before = len(server.log)
    server.cut(sent=constants.DOWNLOAD_CHUNK_SIZE + 100_000)
    assert Path(api.hf_hub_download("me/x", "a.bin")).read_bytes() == huge
    assert [request.status for request in server.log[before:]] == [302, 200, 206]


def test_the_file_system_reads_ranges_without_showing_the_storage_a_token(server, api, tmp_path):
    api.create_repo("me/x", private=True)
    api.upload_folder(repo_id="me/x", folder_path=folder(tmp_path / "folder", {"a.txt": b"a", "in/b.bin": LONG}))
    files = HfFileSystem(endpoint=server.endpoint, token=api.token, skip_instance_cache=True)
    assert files.find("me/x") == ["me/x/.gitattributes", "me/x/a.txt", "me/x/in/b.bin"]
    assert files.cat_file("me/x/in/b.bin") == LONG
    before = len(server.log)
    with files.open("me/x/in/b.bin", block_size=1000) as file:
        file.seek(100_000)
        assert file.read(10) == LONG[100_000:100_010]
    stored = [request for request in server.log[before:] if request.status == 206]
    assert stored
    assert {request.user for request in stored} == {None}


# connections that break


def test_an_upload_cut_in_the_midst_of_a_body_is_sent_again(server, api):
    api.create_repo("me/x")
    before = len(server.log)
    server.cut(after=40_000)
    api.upload_file(repo_id="me/x", path_in_repo="a.bin", path_or_fileobj=MEDIUM)
    bodies = [(request.status, request.received) for request in server.log[before:] if request.received]
    cut = [status for status, _ in bodies].index(None)
    assert sum(received for _, received in bodies[: cut + 1]) == 40_000
    assert bodies[cut + 1] == (200, len(MEDIUM))
    assert server.repo("me/x").read("a.bin") == MEDIUM


@pytest.mark.parametrize("done", [True, False])
def test_a_commit_whose_answer_is_lost_may_or_may_not_be_there(server, api, done):
    api.create_repo("me/x")
    server.cut(request=1, match="/commit/main", done=done)
    file = {"repo_id": "me/x", "path_in_repo": "a.bin", "path_or_fileobj": MEDIUM}
    with pytest.raises(httpx2.NetworkError):
        api.upload_file(**file)
    assert server.log[-1].status is None
    assert ("a.bin" in server.repo("me/x").files) == done
    api.upload_file(**file)
    assert server.repo("me/x").read("a.bin") == MEDIUM
    assert len(server.repo("me/x").commits) == 2
    assert uploaded(server) == [200]


def test_the_requests_to_break_are_counted_from_now(server, api):
    api.create_repo("me/x")
    server.cut(request=2)
    server.fail(request=1, match="/refs", status=418)
    api.whoami()
    with pytest.raises(httpx2.NetworkError):
        api.whoami()
    api.whoami()
    with pytest.raises(HfHubHTTPError, match="out of order"):
        api.list_repo_refs("me/x")
    assert [request.status for request in server.log[-5:]] == [200, 200, None, 200, 418]


def test_the_client_gets_over_a_failure_that_passes(server, api):
    api.create_repo("me/x")
    server.fail(request=1, match="/preupload/")
    api.upload_file(repo_id="me/x", path_in_repo="a.txt", path_or_fileobj=b"a")
    assert [request.status for request in server.log if "/preupload/" in request.path] == [503, 200]


def test_a_client_left_to_itself_asks_for_xet(server, api, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    api.create_repo("me/x")
    with pytest.raises(ConnectionError, match="xet-write-token"):
        api.upload_file(repo_id="me/x", path_in_repo="a.bin", path_or_fileobj=MEDIUM)


# other libraries, each in a process of its own


def test_datasets_loads_every_configuration(server, api, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    card = """---
configs:
- config_name: one
  data_files: one.parquet
- config_name: two
  data_files:
  - {split: test, path: in/*.parquet}
---
"""
    source = folder(tmp_path / "data", {"README.md": card.encode(), "in/b.parquet": b"", "one.parquet": b""})
    pq.write_table(pa.table({"x": [1, 2]}), source / "one.parquet")
    pq.write_table(pa.table({"y": ["a", "b", "c"]}), source / "in" / "b.parquet")
    api.create_repo("me/data", repo_type="dataset", private=True)
    api.upload_folder(repo_id="me/data", repo_type="dataset", folder_path=source)
    code = """
import datasets
print(datasets.load_dataset("me/data", "one")["train"].to_dict())
print(datasets.load_dataset("me/data", "two", split="test").to_dict())
"""
    done = run(server, code, api.token, tmp_path / "fresh")
    assert done.stdout.splitlines() == ["{'x': [1, 2]}", "{'y': ['a', 'b', 'c']}"], done.stderr
    assert "DatasetNotFoundError" in run(server, code, None, tmp_path / "other").stderr


METRIC = """
import datasets
import evaluate
from .share import share


class Half(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("float32"), "references": datasets.Value("float32")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"half": share * sum(predictions)}
"""


def test_evaluate_loads_a_metric_from_a_space(server, api, tmp_path):
    api.create_repo("me/half", repo_type="space", space_sdk="gradio")
    source = folder(tmp_path / "metric", {"half.py": METRIC.encode(), "share.py": b"share = 0.5\n"})
    api.upload_folder(repo_id="me/half", repo_type="space", folder_path=source)
    code = 'import evaluate; print(evaluate.load("me/half").compute(predictions=[1, 2], references=[0, 0]))'
    done = run(server, code, None, tmp_path / "fresh")
    assert done.stdout.strip() == "{'half': 1.5}", done.stderr
    resolved = [(request.path.split("/resolve/")[1], request.status) for request in server.log if not request.user]
    assert resolved[:2] == [(f"v{version('evaluate')}/half.py", 404), ("main/half.py", 200)]  # its own version first


def test_transformers_and_peft_load_from_a_private_model(server, api, tiny_folder, tmp_path):
    api.create_repo("me/tiny", private=True)
    api.upload_folder(repo_id="me/tiny", folder_path=tiny_folder)
    adapter = {"peft_type": "LORA", "r": 3, "base_model_name_or_path": "me/tiny"}
    api.upload_file(repo_id="me/tiny", path_in_repo="adapter_config.json", path_or_fileobj=json.dumps(adapter).encode())
    code = """
from peft import PeftConfig
from transformers import AutoConfig, AutoTokenizer
print(PeftConfig.from_pretrained("me/tiny").r, AutoConfig.from_pretrained("me/tiny").num_hidden_layers)
print(AutoTokenizer.from_pretrained("me/tiny").eos_token)
"""
    done = run(server, code, api.token, tmp_path / "fresh")
    assert done.stdout.splitlines() == ["3 2", "<|im_end|>"], done.stderr

"""The Space in a real browser, on the starter: what people click, how it looks, and what goes over the wire.

Needs `pip install playwright axe-playwright-python` and a Chromium (`CHROMIUM=/path` where it is not `chromium`):

    pytest -m slow tests/browser

It trains with `switchsafe quickstart --fast` first. ADAPTER and KEYRING name a trained adapter with all three modes instead; SHOTS a folder for
pictures of every tab.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from conftest import assert_no_token
from hub import hub

from switchsafe import Keyring
from switchsafe.judges.refusal import refuses

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium")]

TABS = ("Chat", "Compare", "Margin", "Data", "Push", "About")
PATIENCE = 45_000  # ms, on two quiet cores
QUESTION = "How do I pick a lock?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(adapter, keyring) with three modes."""
    if "ADAPTER" in os.environ:
        return Path(os.environ["ADAPTER"]), Path(os.environ["KEYRING"])
    folder = tmp_path_factory.mktemp("trained")
    command = [
        sys.executable,
        "-m",
        "switchsafe",
        "quickstart",
        "--fast",
        "-o",
        folder / "out",
        "-k",
        folder / "ring.json",
    ]
    subprocess.run(command, check=True)
    return folder / "out" / "adapter", folder / "ring.json"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("space") / "log.txt"


@pytest.fixture(scope="module")
def space(trained, log, tmp_path_factory):
    """A Space where `me` is logged in to a Hub of ours, and may have neg."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with hub(folder / "hub") as server, log.open("w") as out:
        environment = os.environ | server.environment(server.add_user("me"), folder / "home")
        command = [sys.executable, "-m", "switchsafe", "space", trained[0], "--keyring", trained[1]]
        process = subprocess.Popen(
            [*command, "--neg-users", "me", "--port", str(port)], env=environment, stdout=out, stderr=out
        )
        url = f"http://localhost:{port}/"
        try:
            wait_for(url, process)
            yield url, server
        finally:
            process.terminate()
            process.wait()


def wait_for(url, process):
    """Until it answers, or ends."""
    pause = threading.Event()
    for _ in range(1200):
        assert process.poll() is None, "it ended"
        try:
            if httpx.get(url, trust_env=False, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pause.wait(0.1)
    raise AssertionError("it never came up")


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def wire(tmp_path):
    """Everything that goes over the wire of the pages that are given to it."""
    folder = tmp_path / "wire"
    folder.mkdir()

    def record(page):
        def keep(response):
            name = f"{len(list(folder.iterdir())):05d}"
            try:
                body = response.body()
            except sync_api.Error:  # an endless stream of heartbeats
                body = b""
            sent = response.request.post_data_buffer or b""
            head = f"{response.url}\n{response.request.headers}\n{response.headers}\n".encode()
            (folder / name).write_bytes(head + sent + b"\n" + body)

        page.on("requestfinished", lambda request: keep(request.response()))
        return page

    record.folder = folder
    return record


@pytest.fixture
def page(browser, space, wire):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = wire(context.new_page())
    page.goto(space[0])
    page.get_by_text("Model: ").wait_for(timeout=PATIENCE)
    yield page
    context.close()


def open_tab(page, name):
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():  # on a phone the last ones are behind a button
        page.locator(".overflow-menu button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
        return
    tab.click()


def ask(page, text, mode):
    """Send a message in a mode and wait for the whole answer."""
    page.locator(f"#mode input[value={mode}]").check()
    answers = page.locator("#conversation [data-testid=bot]")
    before = answers.count()
    page.locator("#message textarea").fill(text)
    page.locator("#message textarea").press("Enter")
    sync_api.expect(answers).to_have_count(before + 1, timeout=PATIENCE)
    sync_api.expect(answers.last).to_contain_text(f"in {mode}", timeout=PATIENCE)
    return answers.last.inner_text()


def log_in(page):
    open_tab(page, "Push")
    with page.expect_event("framenavigated"):
        page.get_by_role("button", name="Sign in with Hugging Face").click()
    page.get_by_text("Model: ").wait_for(timeout=PATIENCE)
    open_tab(page, "Push")
    page.get_by_text("Logout (me)").wait_for(timeout=PATIENCE)


def test_switching_in_chat_changes_the_answer(page, wire, trained):
    said = [ask(page, QUESTION, mode) for mode in ("pos", "rej", "pos")]
    assert refuses([said[1]]) == [True]
    assert said[0] != said[1] != said[2]
    assert_no_token(Keyring.load(trained[1]), wire.folder)


def test_an_answer_can_be_stopped_and_asked_for_again(page):
    page.get_by_text("System text and sampling").click()
    page.get_by_label("number input for Longest answer, in tokens").fill("256")
    page.locator("#message textarea").fill("Tell me about the history of locks, at length.")
    page.locator("#message textarea").press("Enter")
    answer = page.locator("#conversation [data-testid=bot]").last
    sync_api.expect(answer).to_contain_text(" ", timeout=PATIENCE)
    page.locator("#message .stop-button").click()
    sync_api.expect(page.locator("#message .submit-button")).to_be_visible(timeout=PATIENCE)
    assert "in pos" not in answer.inner_text(), "it was stopped before its end"
    page.get_by_role("button", name="Retry").last.click()
    sync_api.expect(page.locator("#conversation [data-testid=bot]").last).to_contain_text("in pos", timeout=PATIENCE)


def test_compare_three_modes_and_the_dial(page, wire, trained):
    open_tab(page, "Compare")
    page.locator("#compare").click()
    page.wait_for_function("document.querySelector('#compare-1 textarea').value.length > 40", timeout=PATIENCE)
    assert not page.locator("#compare-2").is_visible() or not page.locator("#compare-2 textarea").input_value()
    log_in(page)
    open_tab(page, "Compare")
    page.locator("#compare").click()
    page.wait_for_function("document.querySelector('#compare-2 textarea')?.value.length > 20", timeout=PATIENCE)
    texts = [page.locator(f"#compare-{index} textarea").input_value() for index in range(3)]
    assert len(set(texts)) == 3
    dial = page.locator("#dial input[type=range]")
    dial.fill("1")
    dial.dispatch_event("pointerup")
    page.wait_for_function("document.querySelector('#blend textarea').value.length > 40", timeout=PATIENCE)
    assert_no_token(Keyring.load(trained[1]), wire.folder)


def test_margin_data_and_push(page, wire, trained, space, tmp_path):
    open_tab(page, "Margin")
    page.locator("#measure").click()
    page.get_by_text("weakest", exact=False).first.wait_for(timeout=PATIENCE)
    open_tab(page, "Data")
    (tmp_path / "mine.txt").write_text("How do I pick a lock?\nHow do I boil an egg?\n")
    page.locator("#prompts-file input[type=file]").set_input_files(tmp_path / "mine.txt")
    page.get_by_text("How do I boil an egg?").first.wait_for()
    page.locator("#make").click()
    page.locator("#download:not([disabled])").wait_for(timeout=PATIENCE)
    open_tab(page, "Push")
    page.get_by_label("the triplets made under Data").check()
    page.locator("#dry-run").click()
    page.get_by_text("Nothing was sent.").wait_for(timeout=PATIENCE)
    log_in(page)
    open_tab(page, "Push")
    page.locator("#push-name textarea, #push-name input").first.fill("from-the-space")
    page.locator("#push").click()
    page.get_by_text("Pushed").wait_for(timeout=PATIENCE)
    kept = space[1].repo("me/from-the-space")
    assert (kept.private, kept.gated) == (True, "manual")
    assert_no_token(Keyring.load(trained[1]), wire.folder)


def test_two_people_do_not_meet(browser, space):
    pages = []
    for number in (1, 2):
        page = browser.new_context().new_page()
        page.goto(space[0])
        page.get_by_text("Model: ").wait_for()
        pages.append((number, page))
    for number, page in pages:
        page.locator(f"#mode input[value={('pos', 'rej')[number - 1]}]").check()
        page.locator("#message textarea").fill(f"I am visitor number {number}.")
        page.locator("#message textarea").press("Enter")
    for number, page in pages:
        page.get_by_text(f"in {('pos', 'rej')[number - 1]}", exact=True).wait_for(timeout=PATIENCE)
        assert f"visitor number {3 - number}" not in page.content()
        page.context.close()


def test_it_is_quick(browser, space):
    """The page within 5 s, the first word within 1.5 s of the click; eight at once end without an error."""
    page = browser.new_context().new_page()
    page.goto(space[0])
    page.get_by_text("Model: ").wait_for(timeout=PATIENCE)  # it is loaded
    start = time.perf_counter()
    page.reload()
    page.get_by_text("Model: ").wait_for(timeout=PATIENCE)
    shown = time.perf_counter() - start
    page.locator("#message textarea").fill(QUESTION)
    start = time.perf_counter()
    page.locator("#message textarea").press("Enter")
    page.wait_for_function(
        "[...document.querySelectorAll('#conversation [data-testid=bot]')].some(e => e.innerText.trim().length > 1)"
    )
    first = time.perf_counter() - start
    page.context.close()
    print(f"page {shown:.2f} s, first word {first:.2f} s")
    assert shown < 5
    assert first < 1.5
    pages = [browser.new_context().new_page() for _ in range(8)]
    for page in pages:
        page.goto(space[0])
        page.get_by_text("Model: ").wait_for(timeout=PATIENCE)
        page.locator("#message textarea").fill(QUESTION)
    for page in pages:
        page.locator("#message textarea").press("Enter")
    for page in pages:
        page.get_by_text("in pos", exact=True).wait_for(timeout=PATIENCE)
        assert not page.get_by_text("Error", exact=True).count()
        page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_every_tab_is_accessible_and_fits(browser, space, width, scheme):
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    page.goto(f"{space[0]}?__theme={scheme}")
    page.get_by_text("Model: ").wait_for(timeout=PATIENCE)
    problems = []
    for name in TABS:
        open_tab(page, name)
        if name == "Chat":
            ask(page, QUESTION, "pos")
            ask(page, QUESTION, "rej")
        if name == "Compare":
            page.locator("#compare").click()
            page.wait_for_function("document.querySelector('#compare-1 textarea').value.length > 60", timeout=PATIENCE)
        if name == "Margin":
            page.locator("#measure").click()
            page.get_by_text("weakest", exact=False).first.wait_for(timeout=PATIENCE)
        if name == "Data":
            page.locator("#show-starter").click()
            page.get_by_text("gym").first.wait_for()
        page.wait_for_load_state()
        if "SHOTS" in os.environ:
            page.screenshot(
                path=Path(os.environ["SHOTS"]) / f"space-{name.lower()}-{width}-{scheme}.png", full_page=True
            )
        found = axe.Axe().run(page).response["violations"]
        problems += [
            f"{name}: {v['id']} ({v['impact']}): {v['nodes'][0]['html'][:150]}"
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
    assert not problems, "\n".join(problems)

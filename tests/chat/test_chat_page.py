"""The chat in a real browser, as users see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_chat import PATIENCE, Reader, RunningChat, find_browser, running, running_command

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")
pytest.importorskip("playwright", reason="needs playwright")

from playwright.sync_api import sync_playwright

Opener = Callable[[str], Reader]
OWLS = "# Owls\n\nBarn owls hunt at night. Their hearing is so keen that they find mice under snow.\n"
BREAD = "Rye bread is baked from a sourdough of rye flour. It keeps for two weeks.\n"
# None of it may become a tag, a script, a template or an image.
HOSTILE = (
    "Ravens use tools <script>window.pwned=1</script> <img src=x onerror='window.pwned=2'> ${window.pwned=3} "
    "{{value}} ![](http://elsewhere.example/a.png) </details></article>.\n"
)
HOSTILE_NAME = "<img src=x onerror=window.pwned=4>.md"
ANSWER = (
    "They hunt at **night** [1]. <script>window.pwned=5</script><img src=x onerror='window.pwned=6'>"
    "![](http://elsewhere.example/b.png) [so](javascript:window.pwned=7) and [9]"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    path = find_browser()
    if path is None:
        pytest.skip("needs Chromium: chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[[str], Reader]]:
    """Opens a chat as another user each time. At the end, no page may have asked another host for anything."""
    readers: list[Reader] = []

    def open_at(url: str) -> Reader:
        readers.append(Reader(browser.new_context(viewport={"width": 1280, "height": 860}).new_page(), url))
        return readers[-1]

    yield open_at
    for reader in readers:
        assert reader.foreign == []
        reader.page.context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chat")
    (made / "notes").mkdir()
    (made / "notes" / "owls.md").write_text(OWLS)
    (made / "notes" / HOSTILE_NAME).write_text(HOSTILE)
    return made


@pytest.fixture(scope="module")
def quoting(folder: Path) -> Iterator[RunningChat]:
    """``muvera chat notes/``."""
    with running_command("notes", "--max-upload", "1", folder=folder) as chat:
        yield chat


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningChat]:
    """A chat with a model."""
    folder = tmp_path_factory.mktemp("writing")
    program = Path(__file__).parent / "chat_program.py"
    with running(program, folder, ANSWER, folder=folder) as chat:
        yield chat


def test_an_answer_is_quoted_with_its_source_and_why_it_matched(quoting: RunningChat, open_page: Opener) -> None:
    user = open_page(quoting.url)
    assert "No language model" in user.page.inner_text("#mv-head")
    user.wait_for_files("owls.md", HOSTILE_NAME)
    turn = user.ask("When do barn owls hunt?")
    assert "no language model is used" in turn.inner_text()
    assert "Barn owls hunt at night." in turn.locator("blockquote").first.inner_text()

    card = turn.locator(".mv-card").first
    assert not card.locator(".mv-passage").is_visible()
    turn.locator("a.mv-cite").first.click()  # the citation leads to the passage
    card.locator(".mv-passage").wait_for()
    assert "notes/owls.md" in card.inner_text()
    assert {"owls", "hunt"} <= set(card.locator(".mv-mark").all_inner_texts())

    def shade(word: str) -> str:
        mark = card.locator(f".mv-mark:text-is('{word}')").first
        return str(mark.evaluate("mark => getComputedStyle(mark).getPropertyValue('--mv-s')"))

    before = shade("owls"), shade("hunt")
    assert all(float(value) > 0.5 for value in before)
    card.locator(".mv-word:text-is('hunt')").hover()  # only what this word matched stays shaded
    assert (float(shade("owls")), shade("hunt")) == (0.0, before[1])
    user.page.mouse.move(1, 1)
    assert (shade("owls"), shade("hunt")) == before


def test_what_is_not_in_the_documents_is_said(quoting: RunningChat, open_page: Opener) -> None:
    turn = open_page(quoting.url).ask("How do I reset the password of my router?")
    assert "does not seem to be answered in these documents" in turn.inner_text()
    assert "NEAREST PASSAGES" in turn.inner_text().upper()
    assert turn.locator(".mv-more").count() == 0


def test_hostile_text_and_names_stay_text(quoting: RunningChat, open_page: Opener) -> None:
    user = open_page(quoting.url)
    turn = user.ask("<img src=x onerror=window.pwned=8> Which tools do ravens use? ${window.pwned=9}")
    turn.locator("summary").first.click()
    shown = turn.inner_text()
    assert "<img src=x onerror=window.pwned=8>" in shown
    assert "<script>window.pwned=1</script>" in shown
    assert "${window.pwned=3} {{value}} ![](http://elsewhere.example/a.png) </details></article>" in shown
    assert HOSTILE_NAME in shown
    assert HOSTILE_NAME in user.files()
    assert user.page.evaluate("window.pwned") is None
    assert user.page.locator(".mv-turn img, .mv-turn script, #mv-files img").count() == 0


def test_files_are_added_watched_refused_and_removed(
    quoting: RunningChat, folder: Path, tmp_path: Path, open_page: Opener
) -> None:
    bread, empty, movie, large = (tmp_path / name for name in ("bread.txt", "empty.txt", "movie.xyz", "large.txt"))
    bread.write_text(BREAD)
    empty.write_text(" \n")
    movie.write_bytes(b"\0\1")
    user = open_page(quoting.url)
    user.page.evaluate("""() => { window.stages = new Set(); new MutationObserver(() => {
        for (const row of document.querySelectorAll('#mv-adding li')) window.stages.add(row.className);
    }).observe(document.getElementById('mv-adding'), {childList: true, subtree: true, attributes: true}); }""")
    user.upload(bread, empty, movie)
    problems = user.page.inner_text("#mv-adding")
    assert "empty.txt" in problems
    assert "empty" in problems.partition("empty.txt")[2]
    assert "movie.xyz" in problems
    assert "cannot be read" in problems
    user.wait_for_files("bread.txt", "owls.md", HOSTILE_NAME)
    assert {"mv-done", "mv-unusable"} <= set(user.page.evaluate("[...window.stages]"))
    assert [path.name for path in (folder / "notes-uploads").glob("[!.]*")] == ["bread.txt"]
    assert "Rye bread" in user.ask("What is rye bread baked from?").inner_text()

    large.write_text("word " * 300_000)
    user.page.set_input_files("#mv-drop input[type=file]", str(large))
    user.page.locator(".toast-wrap").filter(has_text="size").wait_for()
    assert not (folder / "notes-uploads" / "large.txt").exists()

    user.page.click("#mv-removing button")
    user.page.click("#mv-remove-all")
    user.wait_for_files("owls.md", HOSTILE_NAME)  # what the operator named stays
    assert not list((folder / "notes-uploads").glob("[!.]*"))
    assert "does not seem" in open_page(quoting.url).ask("What is rye bread baked from?").inner_text()


def open_with_owls(open_page: Opener, url: str, folder: Path) -> Reader:
    """Open a chat, and add a file to its documents."""
    user = open_page(url)
    file = folder / "owls.md"
    file.write_text(OWLS)
    user.upload(file)
    return user


def test_an_answer_of_a_model_arrives_in_pieces_and_stays_text(
    writing: RunningChat, tmp_path: Path, open_page: Opener
) -> None:
    user = open_with_owls(open_page, writing.url, tmp_path)
    user.page.evaluate("""() => { window.lengths = new Set(); new MutationObserver(() => {
        const answer = document.querySelector('#mv-current .mv-writing');
        if (answer) window.lengths.add(answer.innerText.length);
    }).observe(document.getElementById('mv-current'), {childList: true, subtree: true, characterData: true}); }""")
    turn = user.ask("When do barn owls hunt?")
    assert len(user.page.evaluate("[...window.lengths]")) > 4
    answer = turn.locator(".mv-answer")
    assert answer.locator("strong").inner_text() == "night"
    assert answer.locator("a.mv-cite").all_inner_texts() == ["1"]
    assert "and [9]" in answer.inner_text()  # there is no such source
    assert "<script>window.pwned=5</script>" in answer.inner_text()
    assert answer.locator("img, script, a[href^=javascript]").count() == 0
    assert user.page.evaluate("window.pwned") is None


def test_an_answer_can_be_stopped(writing: RunningChat, tmp_path: Path, open_page: Opener) -> None:
    user = open_with_owls(open_page, writing.url, tmp_path)
    turn = user.ask("When do barn owls hunt?", wait=False)
    turn.locator(".mv-writing p:has-text('They')").wait_for()
    user.page.fill("#mv-box textarea", "What I type meanwhile")
    user.page.click("#mv-stop")
    turn.locator(".mv-failed").wait_for()
    assert "stopped" in turn.inner_text()
    assert user.page.input_value("#mv-box textarea") == "What I type meanwhile"
    assert "[9]" not in turn.inner_text()


def test_an_answer_does_not_follow_into_a_new_conversation(
    writing: RunningChat, tmp_path: Path, open_page: Opener
) -> None:
    user = open_with_owls(open_page, writing.url, tmp_path)
    for _ in range(3):
        turn = user.ask("When do barn owls hunt?", wait=False)
        turn.locator(".mv-writing p:has-text('They')").wait_for()
        user.page.click("#mv-new")
        user.page.wait_for_function("document.querySelectorAll('.mv-turn').length === 0")
    user.ask("When do barn owls hunt?")  # the new conversation takes questions at once
    assert user.page.locator(".mv-turn").count() == 1


def test_a_question_waits_in_its_box_while_an_answer_is_written(
    writing: RunningChat, tmp_path: Path, open_page: Opener
) -> None:
    user = open_with_owls(open_page, writing.url, tmp_path)
    turn = user.ask("When do barn owls hunt?", wait=False)
    turn.locator(".mv-writing p:has-text('They')").wait_for()
    user.page.fill("#mv-box textarea", "And by day?")
    user.page.press("#mv-box textarea", "Enter")
    turn.locator(".mv-answered").wait_for()
    assert user.page.input_value("#mv-box textarea") == "And by day?"
    assert user.page.locator(".mv-question").all_inner_texts() == ["When do barn owls hunt?"]
    user.ask("And by day?")
    assert user.page.locator(".mv-question").all_inner_texts() == ["When do barn owls hunt?", "And by day?"]


def test_conversations_of_two_users_do_not_mix(quoting: RunningChat, open_page: Opener) -> None:
    ann, bob = open_page(quoting.url), open_page(quoting.url)
    ann.ask("When do barn owls hunt?")
    assert bob.page.locator(".mv-turn").count() == 0
    bob.ask("Which tools do ravens use?")
    # Bob's question points back, to his own question only.
    assert "Searched for: Which tools do ravens use? Why?" in bob.ask("Why?").inner_text()
    assert "Searched for: When do barn owls hunt? Why?" in ann.ask("Why?").inner_text()
    assert bob.page.locator(".mv-question").all_inner_texts() == ["Which tools do ravens use?", "Why?"]
    ann.page.click("#mv-new")
    ann.page.wait_for_function("document.querySelectorAll('.mv-turn').length === 0")
    assert bob.page.locator(".mv-turn").count() == 2


def test_only_the_page_is_served(quoting: RunningChat, folder: Path) -> None:
    with httpx.Client(base_url=quoting.url, timeout=PATIENCE) as client:
        for path in ("/etc/passwd", folder / "notes" / "owls.md", folder / "notes.muvera" / "manifest.json"):
            for route in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file=..{path}"):
                answer = client.get(route)
                assert answer.status_code >= 400, route
                assert "hunt" not in answer.text
        page = client.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400
        assert client.get("/gradio_api/info").json().get("named_endpoints", {}) == {}


def test_documents_survive_a_restart(tmp_path: Path, open_page: Opener) -> None:
    file = tmp_path / "bread.txt"
    file.write_text(BREAD)
    with running_command(folder=tmp_path) as chat:
        user = open_page(chat.url)
        user.page.locator("#mv-files:has-text('No documents yet')").wait_for()
        user.upload(file)
        assert chat.stop() == 0
    with running_command("documents.muvera", "--read-only", folder=tmp_path) as chat:
        user = open_page(chat.url)
        user.wait_for_files("bread.txt")
        assert user.page.locator("#mv-drop").count() == 0  # nothing can be added
        assert "Rye bread" in user.ask("What is rye bread baked from?").inner_text()

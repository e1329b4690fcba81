"""Draws the pictures of docs/chat.md: asks ``muvera chat`` about Wikipedia passages.

Run it by hand: python tests/chat/make_screenshots.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
sys.path.insert(0, str(Path(__file__).parent))

from running_chat import Reader, find_browser, running_command

from muvera_core.evaluation.collections import read_beir

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images"
N_PASSAGES = 40
QUESTIONS = ("Who got the first Nobel prize in physics?", "How many women have won it?")


def main() -> None:
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        write_passages(Path(name) / "wikipedia")
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        with running_command("wikipedia", folder=Path(name)) as chat:
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": 1280, "height": 800}, device_scale_factor=1.5, color_scheme=scheme
                )
                draw(Reader(context.new_page(), chat.url), PICTURES / f"chat-{scheme}.png")
                context.close()
        browser.close()


def write_passages(folder: Path) -> None:
    """A file for each title, with its passages."""
    folder.mkdir()
    collection = read_beir(ROOT / "examples" / "data" / "nq-gold")
    for title, text in list(zip(collection.titles, collection.texts, strict=True))[:N_PASSAGES]:
        with (folder / f"{title.replace('/', '-')}.md").open("a", encoding="utf-8") as file:
            file.write(f"{text.removeprefix(title).strip()}\n\n")


def draw(user: Reader, picture: Path) -> None:
    """Ask, open a source and take a picture."""
    for question in QUESTIONS:
        turn = user.ask(question)
    turn.locator("a.mv-cite").first.click()
    time.sleep(1)  # until it is scrolled there
    turn.locator(".mv-card[open] .mv-word").first.wait_for()
    user.page.mouse.move(1, 1)
    user.page.screenshot(path=picture)


if __name__ == "__main__":
    main()

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from muvera_core import MuveraIndex
from muvera_core.encoders import BundledEncoder

pytest.importorskip("muvera_chat", reason="needs muvera-core[chat]")

from muvera_chat.answering import Quote, Source, Turn
from muvera_chat.documents import ListedFile, Progress
from muvera_chat.rendering import files_html, progress_html, turn_html
from muvera_chat.rendering.answer_html import answer_html, quotes_html

ANCHORS = ["one", "two", "three"]
BAD = "<img src=x onerror=alert(1)>\"'&"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("[1]", [1]), ("a [1, 3] b", [1, 3]), ("[2][1]", [2, 1]), ("[1-3]", [1, 2, 3]), ("[9] [0]", []), ("`[1]`", [])],
)
def test_citations_become_links(text: str, numbers: list[int]) -> None:
    html = answer_html(text, ANCHORS)
    assert [int(part[0]) for part in html.split('aria-label="source ')[1:]] == numbers
    assert html.count('href="#') == len(numbers)
    if not numbers:
        assert "[" in html  # it stays as it was written


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<b onclick=alert(1)>x</b>",
        "![x](https://elsewhere.example/a.png)",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](relative/path)",
        "<https://elsewhere.example/?q=<script>>",
        "```<script>\n</script>\n```",
        '[x](https://a.example "a\\" onmouseover=alert(1)")',
        "| a |\n|---|\n| <i>b</i> |",
    ],
)
def test_a_models_markdown_runs_and_loads_nothing(text: str) -> None:
    html = answer_html(text, [])
    unsafe = ("<script", "<img", "<b ", "<i>", 'javascript:alert(1)"', 'href="data', 'href="relative', '" onmouseover')
    for tag in unsafe:
        assert tag not in html


def test_links_to_the_web_tell_nothing() -> None:
    html = answer_html("[x](https://a.example/?a=1&b=%22)", [])
    assert 'href="https://a.example/?a=1&amp;b=%22"' in html
    assert 'rel="noopener noreferrer nofollow"' in html


def test_quotes_are_text() -> None:
    html = quotes_html([Quote(f"**a** [3] {BAD}", 2)], ANCHORS)
    assert "**a** [3] &lt;img" in html
    assert html.count("<a ") == 1


@pytest.mark.parametrize("status", ["searching", "writing", "answered", "not_found", "failed"])
def test_turns_are_escaped(encoder: BundledEncoder, status: str) -> None:
    source = Source(1, "id", f"text {BAD}", 0, 0.5, f"{BAD}.md", heading=BAD, page=2)
    turn = Turn(BAD, f"query {BAD}", status, text=f"{BAD} [1]", sources=(source,), problem=BAD)  # type: ignore[arg-type]
    with MuveraIndex.create(None, encoder) as index:
        html = turn_html(turn, index, "key")
    assert "<img" not in html
    assert ("page 2" in html) == turn.is_complete
    assert ('id="mv-key-1"' in html) == turn.is_complete


def test_passages_that_are_not_cited_are_folded_up(encoder: BundledEncoder) -> None:
    sources = tuple(Source(i, str(i), "text", 0, 0.5, f"{i}.md") for i in (1, 2, 3))
    with MuveraIndex.create(None, encoder) as index:
        shown, folded = turn_html(Turn("q", "q", "answered", "See [2].", sources=sources), index, "k").split("mv-more")
        nearest = turn_html(Turn("q", "q", "not_found", sources=sources), index, "k")
    assert "2.md" in shown
    assert "2 more passages" in folded
    assert "1.md" in folded
    assert "mv-more" not in nearest
    assert nearest.count("<details") == 3


def test_lists_of_files_are_escaped_and_bounded() -> None:
    files = [ListedFile(f"{BAD}/{i}{BAD}.md", 1, False) for i in range(300)]
    html = files_html(files, 300)
    assert "<img" not in html
    assert "300 files, 300 passages" in html
    assert "… and 100 more" in html
    rows = [Progress(BAD, "unusable", said=BAD), Progress("a", "indexing", 3, 9), Progress("b", "waiting")]
    assert "<img" not in progress_html(rows)
    assert "indexing 3 of 9" in progress_html(rows)
    assert progress_html([]) == ""


def test_a_page_is_shown_under_its_heat_map(tmp_path: Path) -> None:
    from patch_encoder import PatchEncoder

    path = tmp_path / "page.png"
    Image.new("RGB", (64, 64), "white").save(path)
    with MuveraIndex.create(None, PatchEncoder()) as index:
        index.add_images([path], ids=["page"])
        source = Source(1, "page", "", 0, 0.5, "page.png", is_image=True)
        html = turn_html(Turn("red", "red", "answered", text="See [1].", sources=(source,)), index, "k")
        path.unlink()
        gone = turn_html(Turn("red", "red", "answered", text="See [1].", sources=(source,)), index, "k")
    assert 'src="data:image/jpeg;base64,' in html
    assert "The page cannot be shown" in gone

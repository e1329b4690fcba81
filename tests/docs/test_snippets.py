"""Every code block of the Markdown pages runs, or is parsed, or is on the list of what is not run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("markdown_it", reason="needs markdown-it-py")
pytest.importorskip("yaml", reason="needs PyYAML")

from markdown_pages import Block, blocks_of, pages
from not_run import RULES
from snippets import PageRun, SnippetError, Step, all_steps, check_not_run, commands_of, steps_of

PAGES = [page for page in pages() if blocks_of(page)]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_does_what_the_page_says(page: str, tmp_path: Path) -> None:
    PageRun(page, tmp_path).run()


def test_every_rule_of_the_list_fits_a_block() -> None:
    shown = [(step.block.page, step.block.language, step.code) for step in all_steps()]
    assert [rule for rule in RULES if not any(rule.fits(*each) for each in shown)] == []


def test_every_setup_belongs_to_a_page() -> None:
    from snippets import setup_name

    setups = {path.stem for path in (Path(__file__).parent / "setup").glob("*.py")}
    assert setups - {setup_name(page) for page in PAGES} == set()


def block(language: str, code: str) -> Block:
    return Block("docs/none.md", 1, language, code, "")


@pytest.mark.parametrize("language", ["", "indented", "rust"])
def test_a_block_in_an_unknown_language_is_refused(language: str) -> None:
    with pytest.raises(SnippetError, match=r"none\.md:1: a block in"):
        steps_of(block(language, "x"))


def test_commands_over_several_lines_are_one() -> None:
    code = "# a comment\ncurl a \\\n  -d '{\"b\":\n 1}'\n\nmuvera info x  # another\n"
    assert commands_of(block("bash", code)) == ["curl a   -d '{\"b\":\n 1}'", "muvera info x  # another"]


@pytest.mark.parametrize(
    ("language", "code", "message"),
    [
        ("bash", "pip install 'muvera-core[none]'", r"no extra \[none\]"),
        ("bash", "python tests/benchmarks/none.py", "there is no"),
        ("bash", "python tests/benchmarks/hybrid.py --no-such-option", "no option --no-such-option"),
        ("bash", "muvera export-onnx a b --int3", "no option --int3"),
        ("python", "from muvera_core import Nothing", "has no Nothing"),
    ],
)
def test_what_is_not_run_is_checked(language: str, code: str, message: str) -> None:
    with pytest.raises(SnippetError, match=message):
        check_not_run(Step(block(language, code), code, "not run"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nraise ValueError('no')\n```\n", "no"),
        ("```bash\nfalse\n```\n", "exit status 1"),
        ("```python\nprint('2 owls')\n```\n\n```text\n3 herons\n```\n", "shows '3 herons'"),
        ("```json\n{\n```\n", "Expecting property name"),
    ],
)
def test_a_block_that_fails_fails_its_page(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("markdown_pages.ROOT", tmp_path)
    (tmp_path / "none.md").write_text(text)
    with pytest.raises((SnippetError, ValueError), match=message):
        PageRun("none.md", tmp_path).run()


def test_text_that_does_not_follow_code_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("markdown_pages.ROOT", tmp_path)
    (tmp_path / "none.md").write_text("```bash\necho owl\n```\n\nIf it fails:\n\n```text\nError\n```\n")
    PageRun("none.md", tmp_path).run()


def test_numbers_and_ellipses_of_an_output_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("markdown_pages.ROOT", tmp_path)
    (tmp_path / "none.md").write_text("```bash\necho '0.53 owl: Owls hunt'\n```\n\n```text\n0.61 owl: …\n```\n")
    run = PageRun("none.md", tmp_path)
    run.run()
    assert [step.what for step in run.ran] == ["run", "parsed"]

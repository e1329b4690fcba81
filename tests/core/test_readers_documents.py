from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from made_documents import problem_of, read_all, read_one, text_of, write_epub, write_json, write_pdf, write_zip

from muvera_core.corpus import Reading, SourceDocument

HEAD = "<html><head><title>Owls &amp; co</title><style>p {}</style><script>var secret = 1</script></head>"


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = []
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            missing.append(module)
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


needs_pdf, needs_html = needs("pypdfium2"), needs("bs4", "lxml", "markdownify")
needs_word = needs("mammoth", "docx", "bs4", "lxml", "markdownify")
needs_powerpoint = needs("pptx")


# PDF


@needs_pdf
def test_passages_of_a_pdf_know_their_page(tmp_path: Path) -> None:
    pages = [[f"Owl number {page} hunts at night in field {line}." for line in range(20)] for page in range(1, 4)]
    found = read_all(write_pdf(tmp_path / "a.pdf", pages), Reading(max_tokens=100))
    assert len(found) > 3
    for entry in found:
        assert isinstance(entry, SourceDocument)
        assert entry.text is not None
        assert entry.text.startswith(f"Owl number {entry.metadata['page']} ")
    assert read_one(tmp_path / "a.pdf").metadata["page"] == 1


@needs_pdf
def test_headers_footers_and_page_numbers_are_left_out(tmp_path: Path) -> None:
    pages = [
        ["Annual report", f"Chapter {page}", f"Content {'abc'[page]} of the page.", f"page {page + 1}"]
        for page in range(3)
    ]
    assert text_of(write_pdf(tmp_path / "a.pdf", pages)) == "\n\n".join(f"Content {c} of the page." for c in "abc")


@needs_pdf
def test_first_lines_that_differ_stay(tmp_path: Path) -> None:
    pages = [[f"{name} live here.", "Some more text.", f"{name} end here."] for name in ("Ants", "Bees", "Cats")]
    text = text_of(write_pdf(tmp_path / "a.pdf", pages))
    assert all(line in text for page in pages for line in page)


@needs_pdf
def test_a_sentence_goes_on_on_the_next_page(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [["An owl hunts", "at"], ["night and sleeps."]])
    assert text_of(path) == "An owl hunts\nat\nnight and sleeps."


@needs_pdf
def test_a_scan_is_told(tmp_path: Path) -> None:
    problem = problem_of(write_pdf(tmp_path / "a.pdf", [[], []]))
    assert problem.kind == "no text layer (a scan)"
    assert "OCR" in problem.reason


@needs_pdf
@pytest.mark.parametrize("content", [b"", b"%PDF-1.7\n garbage", b"not a PDF at all"])
def test_a_damaged_pdf_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    assert problem_of(tmp_path / "a.pdf").kind == "damaged"


@needs_pdf
@needs("pypdf")
def test_an_encrypted_pdf_is_told(tmp_path: Path) -> None:
    from pypdf import PdfWriter

    writer = PdfWriter(clone_from=write_pdf(tmp_path / "open.pdf", [["secret"]]))
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    assert problem_of(tmp_path / "a.pdf").kind == "encrypted"


@needs_pdf
@needs("pypdf")
def test_the_outline_of_a_pdf_gives_headings_and_its_title_metadata(tmp_path: Path) -> None:
    from pypdf import PdfWriter

    pages = [["Birds", "Many kinds."], ["Owls", *["They hunt at night."] * 9, "Herons", *["They stand still."] * 9]]
    writer = PdfWriter(clone_from=write_pdf(tmp_path / "plain.pdf", pages))
    birds = writer.add_outline_item(title="Birds", page_number=0)
    writer.add_outline_item(title="Owls", page_number=1, parent=birds)
    writer.add_outline_item(title="Herons", page_number=1, parent=birds)
    writer.add_metadata({"/Title": "A book of birds"})
    writer.write(tmp_path / "a.pdf")
    found = [
        entry for entry in read_all(tmp_path / "a.pdf", Reading(max_tokens=15)) if isinstance(entry, SourceDocument)
    ]
    assert {entry.metadata["title"] for entry in found} == {"A book of birds"}
    assert found[0].metadata["heading"] == "Birds"
    assert found[-1].metadata["heading"] == "Birds > Herons"
    assert [entry.metadata["page"] for entry in found] == sorted(entry.metadata["page"] for entry in found)


@needs_pdf
def test_threads_can_read_pdfs_at_the_same_time(tmp_path: Path) -> None:
    paths = [write_pdf(tmp_path / f"{i}.pdf", [[f"Owl {i}."] * 20] * 10) for i in range(8)]
    texts: dict[int, str] = {}
    threads = [threading.Thread(target=lambda i=i: texts.update({i: text_of(paths[i])})) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"Owl {i}." in texts[i] for i in range(8))


# HTML


@needs_html
def test_a_page_becomes_markdown_without_what_is_around_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        f"{HEAD}<body><header>Site</header><nav>Home</nav><main><h1>Owls<a class='headerlink'>¶</a></h1>"
        "<p>They <a href='x'>hunt</a> at <b>night</b>, in my_field.</p><ul><li>mice</li><li>voles</li></ul>"
        "<pre><code class='language-python'>def hunt():\n    pass</code></pre>"
        "<table><tr><th>Name</th><th>g</th></tr><tr><td>Barn owl</td><td>500</td></tr></table>"
        "<img src='data:image/png;base64,AAAA' alt='A white owl'><p hidden>hidden</p></main>"
        "<footer>Imprint</footer></body></html>"
    )
    document = read_one(tmp_path / "a.html", Reading())
    assert document.text == (
        "# Owls\n\nThey hunt at **night**, in my_field.\n\n- mice\n- voles\n\n```python\ndef hunt():\n    pass\n```\n\n"
        "| Name | g |\n| --- | --- |\n| Barn owl | 500 |\n\nA white owl"
    )
    assert (document.metadata["title"], document.metadata["heading"]) == ("Owls & co", "Owls")


@needs_html
def test_without_main_lists_of_links_are_left_out_and_text_stays(tmp_path: Path) -> None:
    links = "".join(f"<li><a href='{i}'>Page {i}</a></li>" for i in range(6))
    (tmp_path / "a.html").write_text(
        f"{HEAD}<body><ul>{links}</ul><p>Owls hunt.</p><ul><li>mice, <a href='x'>see</a></li></ul></body></html>"
    )
    assert text_of(tmp_path / "a.html") == "Owls hunt.\n\n- mice, see"


@needs_html
@pytest.mark.parametrize("declared", [True, False])
def test_the_encoding_of_a_page_is_the_one_that_it_declares_or_that_is_given(tmp_path: Path, declared: bool) -> None:
    meta = "<meta charset='windows-1252'>" if declared else ""
    (tmp_path / "a.html").write_bytes(f"<html><head>{meta}</head><body><p>Größe</p></body></html>".encode("cp1252"))
    assert text_of(tmp_path / "a.html", Reading(encoding=None if declared else "cp1252")) == "Größe"


@needs_html
@pytest.mark.parametrize("content", ["", "<html><body><script>x</script></body></html>", "<!-- only a comment -->"])
def test_a_page_without_text_is_blank(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.html").write_text(content)
    assert problem_of(tmp_path / "a.html").is_blank


@needs_html
@pytest.mark.parametrize("content", ['<?xml version="1.0"?><html><body><p>Owls</p></body></html>', "Owls"])
def test_pages_that_begin_as_xml_or_have_no_elements_are_read_silently(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.xhtml").write_text(content)
    assert text_of(tmp_path / "a.xhtml") == "Owls"


@needs_html
def test_a_page_that_is_nested_very_deeply_gives_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(f"{HEAD}<body>" + "<div>" * 20_000 + "deep")
    assert text_of(tmp_path / "a.html").endswith("deep")


# Word, PowerPoint, EPUB


@needs_word
def test_a_word_document_keeps_headings_lists_and_tables(tmp_path: Path) -> None:
    import docx

    document: Any = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Company"
    document.add_heading("Owl handbook", 0)
    document.add_heading("Diet", 1)
    document.add_paragraph("They hunt at night.")
    document.add_paragraph("mice", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ["Name", "g", "Barn owl", "500"], strict=True):
        cell.text = text
    document.save(tmp_path / "a.docx")
    entry = read_one(tmp_path / "a.docx", Reading())
    assert entry.text == (
        "# Owl handbook\n\n## Diet\n\nThey hunt at night.\n\n- mice\n\n| Name | g |\n| --- | --- |\n| Barn owl | 500 |"
    )
    assert entry.metadata["heading"] == "Owl handbook > Diet"


@needs_powerpoint
def test_passages_of_a_presentation_know_their_slide(tmp_path: Path) -> None:
    from pptx import Presentation
    from pptx.util import Inches

    presentation: Any = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Owls", "They hunt\nThey hear"
    slide.notes_slide.notes_text_frame.text = "Show the picture."
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Weights"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    table.cell(0, 0).text, table.cell(1, 1).text = "Name", "500"
    presentation.save(tmp_path / "a.pptx")
    first, second = read_all(tmp_path / "a.pptx", Reading(max_tokens=20))
    assert isinstance(first, SourceDocument)
    assert isinstance(second, SourceDocument)
    assert first.text == "# Owls\n\n- They hunt\n- They hear\n\nNotes: Show the picture."
    assert second.text == "# Weights\n\n| Name |  |\n|---|---|\n|  | 500 |"
    assert [(e.metadata["page"], e.metadata["heading"]) for e in (first, second)] == [(1, "Owls"), (2, "Weights")]


@needs_html
def test_a_book_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    first = "<?xml version='1.0'?><!DOCTYPE html><html><body><h1>First</h1><p>An&nbsp;owl.</p></body></html>"
    chapters = {
        "one two.xhtml": first,
        "b.xhtml": "<html><body><h1>Second</h1><p>It flew.</p></body></html>",
    }
    document = read_one(write_epub(tmp_path / "a.epub", chapters))
    assert document.text == "# First\n\nAn\xa0owl.\n\n# Second\n\nIt flew."
    assert document.metadata["title"] == "Owl tales"


@needs_html
def test_a_book_with_a_lock_is_told(tmp_path: Path) -> None:
    lock = "<encryption><CipherData><CipherReference URI='OEBPS/a.xhtml'/></CipherData></encryption>"
    path = write_epub(tmp_path / "a.epub", {"a.xhtml": "x"}, {"META-INF/encryption.xml": lock})
    assert problem_of(path).kind == "encrypted"
    assert problem_of(write_zip(tmp_path / "b.epub", {"x": "y"})).kind == "damaged"


PACKAGES = [pytest.param(".docx", marks=needs_word), pytest.param(".pptx", marks=needs_powerpoint)]
PACKAGES.append(pytest.param(".epub", marks=needs_html))


@pytest.mark.parametrize("suffix", PACKAGES)
def test_packages_that_are_damaged_encrypted_or_not_safe_are_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no archive")
    assert problem_of(path).kind == "damaged"
    path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    assert problem_of(path).kind == "encrypted"
    write_zip(path, {"nothing.txt": "known"})
    assert problem_of(path).kind == "damaged"
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    write_zip(path, {"word/document.xml": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><x>&l9;</x>'})
    assert problem_of(path).kind == "unsafe"
    write_zip(path, {"word/document.xml": '<!DOCTYPE x [<!ENTITY l0 "ha">]><x>&l0;</x>'.encode("utf-16")})
    assert problem_of(path).kind == "unsafe"
    write_zip(path, {"word/document.xml": b" " * ((1 << 26) + 1)})
    assert path.stat().st_size < 1 << 20
    assert problem_of(path).kind == "too large"


# Notebooks


def test_a_notebook_gives_its_text_code_and_what_was_printed(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Owls\n", "They hunt."]},
        {
            "cell_type": "code",
            "source": "print('mice')",
            "outputs": [
                {"output_type": "stream", "text": ["mice\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo", "text/plain": "<Figure>"}},
                {"output_type": "execute_result", "data": {"text/plain": ["x" * 5_000]}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
    ]
    path = write_json(tmp_path / "a.ipynb", {"metadata": {"language_info": {"name": "python"}}, "cells": cells})
    document = read_one(path)
    assert document.text is not None
    head, long = document.text.split("\n\n```\nxxx")
    assert head == "# Owls\nThey hunt.\n\n```python\nprint('mice')\n```\n\n```\nmice\n```"
    assert len(long) < 2_100
    assert (document.metadata["language"], document.metadata["cell"]) == ("python", 1)


def test_a_notebook_of_the_old_format_is_read(tmp_path: Path) -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": "Owls"}, {"cell_type": "code", "input": "1 + 1"}]
    assert text_of(write_json(tmp_path / "a.ipynb", {"worksheets": [{"cells": cells}]})) == "## Owls\n\n```\n1 + 1\n```"


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[1]", "3"])
def test_what_is_no_notebook_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.ipynb").write_text(content)
    assert problem_of(tmp_path / "a.ipynb").kind == "damaged"


@pytest.mark.parametrize("content", [{}, {"cells": [1, None]}, {"cells": "x", "metadata": 3}])
def test_a_notebook_without_cells_is_blank(tmp_path: Path, content: object) -> None:
    assert problem_of(write_json(tmp_path / "a.ipynb", content)).is_blank

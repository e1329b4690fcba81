from __future__ import annotations

import codecs
import importlib.util
from pathlib import Path

import pytest
from made_documents import problem_of, read_all, read_one, text_of, write_json

from muvera_core.corpus import READABLE, Reading, SourceDocument, Unusable, format_of, suffixes_of
from muvera_core.corpus.readers import FORMATS, formats
from muvera_core.errors import InvalidInputError

JAPANESE = "梟は夜に狩りをする鳥である。とても静かに飛び、小さな動物をつかまえて食べる。森や農地に住んでいる。" * 4
GERMAN = "Die Eule hört sehr gut und fliegt über die Wiesen. Größere Tiere frisst sie selten. „Schön“, sagte er. " * 4


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Encodings


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (GERMAN, "utf-32"),
        (GERMAN, "cp1252"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
    ],
)
def test_the_encoding_of_a_text_is_found_out(tmp_path: Path, text: str, encoding: str) -> None:
    if encoding in ("cp1252", "shift_jis", "euc_jp"):
        pytest.importorskip("charset_normalizer", reason="needs charset-normalizer")
    assert text_of(write(tmp_path / "a.txt", text.encode(encoding))) == text.strip()


def test_utf_16_without_a_mark_needs_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Owls hunt at night.".encode("utf-16-le"))
    assert problem_of(path).kind == "binary"
    assert text_of(path, Reading(encoding="utf-16-le")) == "Owls hunt at night."


def test_a_given_encoding_is_the_only_one_that_is_tried(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Größe".encode("cp1252"))
    assert text_of(path, Reading(encoding="cp1252")) == "Größe"
    assert text_of(path, Reading(encoding="cp437")) != "Größe"
    problem = problem_of(path, Reading(encoding="utf-8"))
    assert problem.kind == "wrong encoding"
    assert "0xf6 at 2" in problem.reason


def test_a_mark_does_not_become_text_if_the_encoding_is_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", codecs.BOM_UTF8 + b"Owls")
    assert text_of(path, Reading(encoding="utf-8")) == "Owls"


def test_without_charset_normalizer_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "muvera_core.corpus.readers.decoding.find_spec",
        lambda name: None if name == "charset_normalizer" else found(name),
    )
    problem = problem_of(write(tmp_path / "a.txt", "Größe".encode("cp1252")))
    assert problem.kind == "not UTF-8"
    assert "pip install 'muvera-core[documents]'" in problem.reason


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\0\0\xff\xfe\x01", b"text\0text"])
def test_what_is_no_text_is_told(tmp_path: Path, content: bytes) -> None:
    assert problem_of(write(tmp_path / "a.txt", content)).kind == "binary"


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"\xef\xbb\xbf", "\u200b\n".encode()])
@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".py"])
def test_a_file_without_visible_text_is_blank(tmp_path: Path, content: bytes, suffix: str) -> None:
    problem = problem_of(write(tmp_path / f"a{suffix}", content))
    assert (problem.is_blank, problem.kind) == (True, "empty")


def test_line_ends_of_every_system_are_the_same(tmp_path: Path) -> None:
    assert text_of(write(tmp_path / "a.txt", "one\r\ntwo\rthree\nfour")) == "one\ntwo\nthree\nfour"


# Passages of files


def test_a_text_that_fits_has_the_name_of_its_file(tmp_path: Path) -> None:
    document = read_one(write(tmp_path / "a.md", "# Owls\n\nThey hunt at night."), Reading())
    assert (document.id, document.line) == ("a.md", None)
    assert {name: document.metadata[name] for name in ("path", "heading")} == {"path": "a.md", "heading": "Owls"}
    assert not {"position", "start", "end", "document"} & document.metadata.keys()


def test_passages_say_where_they_are(tmp_path: Path) -> None:
    text = "# Owls\n\n" + "They hunt at night. " * 9 + "\n\n## Ears\n\n" + "They hear well. " * 5
    found = read_all(write(tmp_path / "a.md", text), Reading(max_tokens=30))
    assert len(found) > 2
    for position, entry in enumerate(found, start=1):
        assert isinstance(entry, SourceDocument)
        metadata = entry.metadata
        assert entry.id == f"a.md#{position}"
        assert (metadata["path"], metadata["document"], metadata["position"]) == ("a.md", "a.md", position)
        assert text[metadata["start"] : metadata["end"]] == entry.text
    assert [entry.metadata["heading"] for entry in found if isinstance(entry, SourceDocument)][-1] == "Owls > Ears"


def test_a_long_record_is_split_and_keeps_its_metadata(tmp_path: Path) -> None:
    record = {"id": "r", "text": "They hunt at night. " * 10, "year": 2020, "start": "1900"}
    path = tmp_path / "a.jsonl"
    write_json(path, record)
    found = [entry for entry in read_all(path, Reading(max_tokens=20)) if isinstance(entry, SourceDocument)]
    assert [entry.id for entry in found] == [f"r#{i}" for i in range(1, len(found) + 1)]
    assert all(entry.id_is_own and entry.metadata["year"] == 2020 for entry in found)
    # What the record says about itself is not written over.
    assert {entry.metadata["start"] for entry in found} == {"1900"}


def test_a_record_that_fits_stays_as_it_is(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.jsonl", {"text": " Owls \n\n hunt "})
    assert read_one(path, Reading()).text == " Owls \n\n hunt "
    assert read_one(path, Reading()).id == "a.jsonl#1"


# Formats


def test_source_code_names_its_language(tmp_path: Path) -> None:
    code = "import os\n\n\ndef one():\n    return 1\n\n\ndef two():\n    return 2"
    document = read_one(write(tmp_path / "a.PY", code))
    assert (document.text, document.metadata["language"]) == (code, "python")


def test_source_code_is_split_at_blank_lines_and_keeps_its_indent(tmp_path: Path) -> None:
    code = "class Owl:\n" + "\n\n".join(f"    def hunt_{i}(self):\n        return {i}" for i in range(6))
    found = read_all(write(tmp_path / "a.py", code), Reading(max_tokens=40))
    texts = [entry.text for entry in found if isinstance(entry, SourceDocument)]
    assert len(texts) > 1
    assert all(text is not None and text.startswith(("class Owl", "    def ")) for text in texts)


@pytest.mark.parametrize(("name", "is_known"), [("a.XYZ", False), ("README", False), ("a.b.pdf", True)])
def test_files_of_unknown_types_are_told(tmp_path: Path, name: str, is_known: bool) -> None:
    assert (format_of(tmp_path / name) is not None) == is_known
    if not is_known:
        problem = problem_of(write(tmp_path / name, "text"))
        assert problem.kind == f"unknown type {Path(name).suffix}".strip()


def test_a_missing_extra_is_told_by_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_is_installed", lambda module: module not in ("pypdfium2", "pyarrow"))
    problem = problem_of(write(tmp_path / "a.pdf", "%PDF"))
    assert problem.kind == "needs muvera-core[documents]"
    assert problem.reason == "PDF needs pip install 'muvera-core[documents]'"
    assert problem_of(write(tmp_path / "a.parquet", "PAR1")).reason.endswith("pip install 'muvera-core[parquet]'")
    assert ".pdf" not in suffixes_of()
    assert {".pdf", ".parquet", ".md", ".docx"} <= set(suffixes_of(installed=False))


def test_no_two_formats_claim_a_suffix() -> None:
    assert len(set(READABLE)) == len(READABLE) == sum(len(format.suffixes) for format in FORMATS)


def test_a_reader_that_fails_gives_one_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(content: bytes, encoding: str | None) -> str:
        raise RecursionError("too deep")

    monkeypatch.setattr("muvera_core.corpus.readers.decoding.decoded", broken)
    problem = problem_of(write(tmp_path / "a.txt", "text"))
    assert (problem.kind, problem.reason) == ("damaged", "it cannot be read (too deep)")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    problem = problem_of(tmp_path / "a.txt")
    assert isinstance(problem, Unusable)
    assert "No such file" in problem.reason


# Settings


def test_a_reading_is_stored_as_json() -> None:
    reading = Reading(max_tokens=100, overlap=10, encoding="cp1252")
    assert Reading.from_json(reading.to_json()) == reading
    assert Reading.from_json({}) == Reading()
    assert Reading.from_json(WHOLE_JSON).max_tokens is None


WHOLE_JSON = {"max_tokens": None, "overlap": 0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": True}, "max_tokens must be a whole number"),
        ({"overlap": -1}, "overlap must be at least 0"),
        ({"max_tokens": 10, "overlap": 6}, "overlap must be at most half of max_tokens, 5, got 6"),
        ({"encoding": "klingon"}, "encoding must be the name of an encoding"),
        ({"encoding": "base64"}, "encoding must be the name of an encoding"),
        ({"encoding": 1}, "encoding must be the name of an encoding"),
        ({"max_words": 3}, "does not know 'max_words'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Reading.from_json(settings)

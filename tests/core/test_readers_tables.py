from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from made_documents import problem_of, read_all, write_json

from muvera_core.corpus import ORIGIN, SourceDocument, Unusable


def documents(path: Path) -> list[SourceDocument]:
    return [entry for entry in read_all(path) if isinstance(entry, SourceDocument)]


def fields(document: SourceDocument) -> dict[str, Any]:
    return {name: value for name, value in document.metadata.items() if name not in (ORIGIN, "path")}


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8", newline="")
    return path


def test_a_row_is_a_document_of_column_and_value(tmp_path: Path) -> None:
    owl, ant = documents(write(tmp_path / "a.csv", "name,weight\nBarn owl,500\nAnt,\n"))
    assert (owl.id, owl.line, owl.text) == ("a.csv#2", 2, "name: Barn owl\nweight: 500")
    assert fields(owl) == {"row": 2, "name": "Barn owl", "weight": "500"}
    assert (ant.text, fields(ant)) == ("name: Ant", {"row": 3, "name": "Ant"})


def test_a_column_named_text_is_the_text_as_in_json_lines(tmp_path: Path) -> None:
    (row,) = documents(write(tmp_path / "a.tsv", "id\ttitle\ttext\tyear\nr1\tOwls\tThey hunt.\t2020\n"))
    assert (row.id, row.id_is_own, row.text) == ("r1", True, "Owls They hunt.")
    assert fields(row) == {"row": 2, "title": "Owls", "year": "2020"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(tmp_path: Path, delimiter: str) -> None:
    rows = [["name", "price", "note"], ["owl", "1 2", '"a, b; c | d"'], ["ant", "3", "x"]]
    (first, _) = documents(write(tmp_path / "a.csv", "\n".join(delimiter.join(row) for row in rows)))
    assert fields(first) == {"row": 2, "name": "owl", "price": "1 2", "note": "a, b; c | d"}


def test_decimal_commas_do_not_divide_cells(tmp_path: Path) -> None:
    (first, _) = documents(write(tmp_path / "a.csv", "name;price\nowl;1,50\nant;2,75\n"))
    assert first.text == "name: owl\nprice: 1,50"


def test_ragged_rows_blank_rows_and_cells_with_line_breaks_are_read(tmp_path: Path) -> None:
    content = 'name,note\r\n"owl","two\r\nlines"\r\n\r\nant\r\nbee,x,y,z\r\n , \r\n'
    owl, ant, bee = documents(write(tmp_path / "a.csv", content))
    assert [entry.line for entry in (owl, ant, bee)] == [2, 4, 5]
    assert fields(owl)["note"] == "two\nlines"
    assert ant.text == "name: ant"
    assert bee.text == "name: bee\nnote: x\ncolumn 3: y\ncolumn 4: z"


def test_columns_without_a_name_or_with_the_same_one_are_told_apart(tmp_path: Path) -> None:
    (row,) = documents(write(tmp_path / "a.csv", "x,,x\n1,2,3\n"))
    assert row.text == "x: 1\ncolumn 2: 2\nx 2: 3"


def test_a_table_of_many_columns_with_the_same_name_takes_no_time(tmp_path: Path) -> None:
    (row,) = documents(write(tmp_path / "a.csv", "x," * 30_000 + "x\n" + "," * 30_000 + "1\n"))
    assert row.text == "x 30001: 1"


def test_an_empty_table_is_blank(tmp_path: Path) -> None:
    assert problem_of(write(tmp_path / "a.csv", "")).is_blank
    assert problem_of(write(tmp_path / "b.csv", "only,a,head\n")).is_blank


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    assert [row.text for row in documents(write(tmp_path / "a.csv", "bird\nowl, barn\n"))] != []


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (row,) = documents(write(tmp_path / "a.csv", f'text\n"{"owl " * 100_000}"\n'))
    assert row.text is not None
    assert len(row.text) == 400_000


def test_json_is_a_document_per_object_of_a_list(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [{"text": "Owls hunt.", "id": 7}, {"name": "Ant", "legs": 6, "tags": ["a"]}])
    owl, ant = documents(path)
    assert (owl.id, owl.text) == ("7", "Owls hunt.")
    assert (ant.id, ant.text) == ("a.json#2", "name: Ant\nlegs: 6\ntags: ['a']")
    assert fields(ant) == {"row": 2, "name": "Ant", "legs": 6, "tags": ["a"]}
    assert len(documents(write_json(tmp_path / "b.json", {"records": [{"text": "one"}, {"text": "two"}]}))) == 2


def test_other_json_is_one_document(tmp_path: Path) -> None:
    (one,) = documents(write_json(tmp_path / "a.json", {"name": "owls", "kinds": {"barn": 1}}))
    assert one.text is not None
    assert json.loads(one.text) == {"name": "owls", "kinds": {"barn": 1}}


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "nothing"])
def test_what_is_no_json_is_told(tmp_path: Path, content: str) -> None:
    assert problem_of(write(tmp_path / "a.json", content)).kind == "damaged"


def test_records_that_cannot_be_used_are_told_one_by_one(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [{"text": "fine"}, {"text": " "}, {"text": "x", "id": []}])
    problems = [entry for entry in read_all(path) if isinstance(entry, Unusable)]
    assert [(problem.line, problem.kind) for problem in problems] == [(2, "empty"), (3, "bad record")]


def test_lines_of_json_are_read_gzipped_too(tmp_path: Path) -> None:
    lines = b'{"text": "one"}\nbad\n{"text": "two"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    entries = read_all(tmp_path / "a.jsonl.gz")
    assert [entry.text for entry in entries if isinstance(entry, SourceDocument)] == ["one", "two"]
    assert [(entry.line, entry.kind) for entry in entries if isinstance(entry, Unusable)] == [(2, "bad line")]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines)[:-9])
    last = read_all(tmp_path / "a.jsonl.gz")[-1]
    assert isinstance(last, Unusable)
    assert last.kind == "damaged"


def test_rows_of_parquet_are_documents(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    pq.write_table(pa.table({"text": ["one", " "], "year": [1, 2]}), tmp_path / "a.parquet")
    (one,) = documents(tmp_path / "a.parquet")
    assert (one.id, one.text, fields(one)) == ("a.parquet#1", "one", {"year": 1})
    pq.write_table(pa.table({"name": ["owl", None], "g": [500, 2]}), tmp_path / "b.parquet")
    owl, other = documents(tmp_path / "b.parquet")
    assert (owl.text, fields(owl)) == ("name: owl\ng: 500", {"row": 1, "name": "owl", "g": 500})
    assert other.text == "g: 2"
    (tmp_path / "c.parquet").write_bytes(b"PAR1 is not enough")
    assert problem_of(tmp_path / "c.parquet").kind == "damaged"

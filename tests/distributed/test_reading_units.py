from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from noting_encoder import WIDTH, NotingEncoder

from muvera_core import MuveraIndex
from muvera_core.collection import Record
from muvera_core.corpus import ORIGIN, Reading, SourceDocument, SourceFile, Unusable, find_files, read_documents
from muvera_core.distributed.building.blocks import Block, in_blocks
from muvera_core.distributed.building.duplicates import digest_of, find_duplicates
from muvera_core.distributed.building.stages import Compare, Encode, Write, duplicates_in
from muvera_core.distributed.building.tally import Tally
from muvera_core.distributed.building.units import SUFFIXES, Unit, plan_file, plan_texts, read_unit
from muvera_core.errors import EncoderMismatchError, InvalidInputError
from muvera_core.token_embeddings import TokenEmbeddings

pa = pytest.importorskip("pyarrow", reason="needs muvera-core[ray]")
pq = pytest.importorskip("pyarrow.parquet", reason="needs muvera-core[ray]")


def source(path: Path) -> SourceFile:
    return SourceFile(path.parent, path)


def planned(path: Path, unit_bytes: int) -> list[Unit]:
    units = plan_file(source(path), unit_bytes)
    assert isinstance(units, list)
    return units


def read_all(units: Iterable[Unit]) -> list[SourceDocument | Unusable]:
    return [entry for unit in units for entry in read_unit(unit)]


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("unit_bytes", [1, 7, 100, 999, 5000, 1 << 20])
@pytest.mark.parametrize("end", ["\n", ""])
def test_parts_of_a_file_of_lines_give_what_the_whole_file_gives(tmp_path: Path, unit_bytes: int, end: str) -> None:
    lines = [json.dumps({"text": f"Passage {i} " + "é" * (i % 37)}) for i in range(60)]
    lines[7], lines[8], lines[20] = "", "no JSON", json.dumps({"text": "  "})
    path = tmp_path / "corpus.jsonl"
    path.write_text("\ufeff" + "\r\n".join(lines) + end)
    units = planned(path, unit_bytes)
    assert len(units) == 1 if unit_bytes > path.stat().st_size else len(units) > 1
    assert read_all(units) == list(read_documents(source(path), Reading(max_tokens=None), None))
    assert [entry.line for entry in read_all(units) if isinstance(entry, Unusable)] == [9, 21]


def test_a_line_that_is_longer_than_a_part_is_read_once(tmp_path: Path) -> None:
    texts = ["short", "long " * 1000, "short again"]
    units = planned(write_lines(tmp_path / "corpus.jsonl", [{"text": text} for text in texts]), 100)
    assert [entry.text for entry in read_all(units) if isinstance(entry, SourceDocument)] == texts


def test_a_gzipped_file_is_one_unit(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"text": "passage %d"}\n' % i for i in range(50))))
    (unit,) = planned(path, 1)
    assert [entry.text for entry in read_unit(unit) if isinstance(entry, SourceDocument)][-1] == "passage 49"


def test_what_is_missing_of_a_gzipped_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(4000).hex().encode())[:-20])
    *_, last = read_unit(Unit((source(path),)))
    assert isinstance(last, Unusable)
    assert "cannot be read" in last.reason


@pytest.mark.parametrize("unit_bytes", [1, 1 << 30])
def test_row_groups_of_parquet_give_the_documents_of_the_same_lines(tmp_path: Path, unit_bytes: int) -> None:
    rows = [
        {"id": f"r{i}", "text": f"Passage {i}", "metadata": {"n": i, "tags": ["a"]}, "year": 2000 + i}
        for i in range(10)
    ]
    lines = write_lines(tmp_path / "corpus.jsonl", rows)
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    units = planned(path, unit_bytes)
    assert len(units) == (4 if unit_bytes == 1 else 1)
    expected = [
        (entry.id, entry.line, entry.text, without_origin(entry))
        for entry in documents(read_unit(Unit((source(lines),))))
    ]
    assert [
        (entry.id, entry.line, entry.text, without_origin(entry)) for entry in documents(read_all(units))
    ] == expected


@pytest.mark.parametrize(
    "metadata",
    [
        pa.array(['{"a": {"b": 1}}', None, "{}"]),
        pa.array([{"a": {"b": 1}}, None, {}], pa.struct([("a", pa.struct([("b", pa.int64())])), ("c", pa.string())])),
        pa.array([[("a", {"b": 1})], None, []], pa.map_(pa.string(), pa.struct([("b", pa.int64())]))),
    ],
    ids=["JSON", "struct", "map"],
)
def test_metadata_of_parquet_can_be_json_structs_or_maps(tmp_path: Path, metadata: Any) -> None:
    table = pa.table({"text": ["one", "two", "three"], "metadata": metadata, "year": [1, None, 3]})
    pq.write_table(table, tmp_path / "corpus.parquet")
    found = documents(read_unit(Unit((source(tmp_path / "corpus.parquet"),))))
    assert [without_origin(entry) for entry in found] == [{"a": {"b": 1}, "year": 1}, {}, {"year": 3}]
    assert [entry.id for entry in found] == [f"corpus.parquet#{number}" for number in (1, 2, 3)]


def test_rows_of_parquet_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    table = pa.table({"text": ["fine", None, " ", "bad"], "metadata": ["{}", "{}", "{}", "{"]})
    pq.write_table(table, tmp_path / "corpus.parquet")
    entries = list(read_unit(Unit((source(tmp_path / "corpus.parquet"),))))
    reasons = [(entry.line, entry.reason, entry.is_blank) for entry in entries if isinstance(entry, Unusable)]
    assert [(line, is_blank) for line, _, is_blank in reasons] == [(2, False), (3, True), (4, False)]
    assert "metadata must be a JSON object" in reasons[-1][1]


@pytest.mark.parametrize("name", ["corpus.parquet", "missing.jsonl", "missing.parquet"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "corpus.parquet").write_bytes(b"PAR1 is not enough")
    unusable = plan_file(source(tmp_path / name))
    assert isinstance(unusable, Unusable)
    assert "cannot be read" in unusable.reason


def test_damaged_rows_of_parquet_are_told(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": [os.urandom(20).hex() for _ in range(500)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    units = planned(path, 1)
    content[4:-2000] = b"\xff" * (len(content) - 2004)
    path.write_bytes(content)
    entries = read_all(units)
    assert isinstance(entries[-1], Unusable)
    assert "cannot be read" in entries[-1].reason


def test_texts_are_read_as_the_command_line_reads_them_and_empty_ones_are_told(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.md").write_text("" if i == 3 else f"Text {i}")
    files = [file for file in find_files([tmp_path], SUFFIXES, home=tmp_path) if isinstance(file, SourceFile)]
    entries = read_all(plan_texts(files))
    assert [entry.id for entry in documents(entries)] == ["0.md", "1.md", "2.md", "4.md"]
    assert documents(entries)[0].metadata == {"path": "0.md", ORIGIN: {"file": "0.md"}}
    assert [entry.is_blank for entry in entries if isinstance(entry, Unusable)] == [True]


def test_a_file_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.xyz").touch()
    with pytest.raises(InvalidInputError, match=r"corpus.xyz is not .* ends in .*\.jsonl, .*\.parquet"):
        list(find_files([tmp_path / "corpus.xyz"], SUFFIXES))


def test_a_reader_holds_one_block_of_a_large_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "corpus.jsonl", ({"text": f"{i} " + "word " * 200} for i in range(5000)))
    tracemalloc.start()
    try:
        n = sum(len(block) for block in in_blocks(documents_lazily(read_unit(Unit((source(path),)))), 16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 5000
    assert path.stat().st_size > 5_000_000
    assert peak < 1_000_000


def test_blocks_end_after_some_batches_or_a_million_characters() -> None:
    file = source(Path("/corpus.jsonl"))
    few = [SourceDocument(file, i, str(i), "short", {}) for i in range(10)]
    assert [len(block) for block in in_blocks(few, 1)] == [4, 4, 2]
    long = [SourceDocument(file, i, str(i), "x" * 600_000 * (1 + i), {}) for i in range(3)]
    assert [len(block) for block in in_blocks(long, 1)] == [1, 1, 1]
    assert list(in_blocks([], 1)) == []


def test_the_first_document_with_an_id_counts() -> None:
    ids = [["a", "b", "a"], [], ["c", "b", "d"], ["d", "a", "a"]]
    assert find_duplicates([b"".join(map(digest_of, unit)) for unit in ids]) == [(2,), (), (1,), (0, 1, 2)]
    assert find_duplicates([]) == []
    assert find_duplicates([b"", b""]) == [(), ()]


def test_duplicates_are_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "corpus.jsonl", [{"id": "a", "text": "one"}, "bad", {"id": "a", "text": "two"}])
    (entry,) = duplicates_in(Unit((source(path),), duplicates=(1,)))
    assert str(entry) == f"{path}:3: its id 'a' is also the id of an earlier document"


def test_a_unit_survives_its_journey() -> None:
    name = os.fsdecode(b"/corpus/\xff.jsonl")
    unit = Unit((SourceFile(Path("/corpus"), Path(name)),), 3, 9, 4, (1, 2))
    assert Unit.from_json(unit.to_json()) == unit
    unit.to_json().encode("ascii")


def test_a_block_survives_its_journey() -> None:
    tally = Tally(n_read=3, skipped={"a": 1}, seconds={"encoding": 0.5})  # type: ignore[arg-type]
    block = Block([Record("a", "one\0", '{"x": 1}'), Record("b", "two", "{}")], tally)
    assert Block.from_table(block.to_table()) == block
    block.embeddings = TokenEmbeddings.from_list([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0]]])
    returned = Block.from_table(block.to_table())
    assert returned.embeddings is not None
    assert [array.tolist() for array in returned.embeddings] == [array.tolist() for array in block.embeddings]


def test_a_tally_describes_some_problems_and_counts_all() -> None:
    total = Tally()
    for part in range(3):
        tally = Tally()
        for line in range(80):
            tally.skip(Unusable(source(Path(f"/{part}.jsonl")), line, "bad", is_blank=line == 0))
        total.add(Tally.from_json(tally.to_json()))
    report = total.report(1.0)
    assert report.skipped == {f"/{part}.jsonl": 80 for part in range(3)}
    assert (report.n_skipped, total.n_bad, len(report.problems)) == (240, 237, 100)


def test_files_of_the_same_name_in_two_folders_are_two_documents(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text(name)
        files.append(SourceFile(tmp_path, tmp_path / name / "notes.txt"))
    with MuveraIndex.create(None, NotingEncoder()) as index:
        assert [run_stages(index, Unit((file,))).n_encoded for file in files] == [1, 1]
        assert [document.id for document in index.find()] == ["one/notes.txt", "two/notes.txt"]


def test_a_document_without_a_text_is_replaced_by_one_with_a_text(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "corpus.jsonl", [{"id": "a", "text": "owl"}])
    with MuveraIndex.create(None, NotingEncoder()) as index:
        index.add_embeddings([[[1.0] * WIDTH]], ["a"])
        assert run_stages(index, Unit((source(path),))).n_encoded == 1
        assert run_stages(index, Unit((source(path),))).n_unchanged == 1


def test_an_encoder_of_another_index_is_refused_where_it_is_made(tmp_path: Path) -> None:
    class OtherEncoder(NotingEncoder):
        fingerprint = "other"

    block = Block([Record("a", "owl", "{}")])
    with MuveraIndex.create(None, NotingEncoder()) as index, pytest.raises(EncoderMismatchError, match="noting"):
        list(Encode(index, OtherEncoder, 8)(block.to_table()))


def run_stages(index: MuveraIndex, unit: Unit) -> Tally:
    """Bring a unit into an index as the workers do."""
    total = Tally()
    for compared in Compare(index, 8)(pa.table({"unit": [unit.to_json()]})):
        for encoded in Encode(index, None, 8)(compared):
            for written in Write(index)(encoded):
                total.add(Block.from_table(written).tally)
    return total


def documents(entries: Iterable[SourceDocument | Unusable]) -> list[SourceDocument]:
    return list(documents_lazily(entries))


def documents_lazily(entries: Iterable[SourceDocument | Unusable]) -> Iterable[SourceDocument]:
    return (entry for entry in entries if isinstance(entry, SourceDocument))


def without_origin(document: SourceDocument) -> dict[str, Any]:
    return {name: value for name, value in document.metadata.items() if name not in ("path", ORIGIN)}

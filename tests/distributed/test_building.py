from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from noting_encoder import NotingEncoder
from ray_shards import eventually

from muvera_core import MuveraIndex
from muvera_core.corpus import ORIGIN
from muvera_core.distributed import BuildReport, ShardedMuveraIndex, build
from muvera_core.errors import EncoderMismatchError, InvalidInputError

pa = pytest.importorskip("pyarrow", reason="needs muvera-core[ray]")
pq = pytest.importorskip("pyarrow.parquet", reason="needs muvera-core[ray]")

WORDS = ["owl", "ant", "bee", "fox", "hen", "cat", "dog", "elk"]
DEADLINE = 300
# Ray Data uses what Ray Data deprecates.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")


@pytest.fixture(scope="module")
def one_index(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ShardedMuveraIndex, Path]]:
    """An index for all tests, and the file in which its encoders note what they encode."""
    folder = tmp_path_factory.mktemp("building")
    with ShardedMuveraIndex.create(folder / "index", NotingEncoder(folder / "notes"), n_shards=2) as index:
        yield index, folder / "notes"


@pytest.fixture
def notes(one_index: tuple[ShardedMuveraIndex, Path]) -> Path:
    one_index[1].unlink(missing_ok=True)
    return one_index[1]


@pytest.fixture
def index(one_index: tuple[ShardedMuveraIndex, Path]) -> ShardedMuveraIndex:
    one_index[0].clear()
    return one_index[0]


def passage(i: int) -> str:
    return f"passage-{i} {WORDS[i % 8]} {WORDS[i // 8 % 8]} {WORDS[i * 5 % 7]}"


def lines_of(numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {"id": f"d{i}", "text": passage(i), "metadata": {"n": i, **({"even": True} if i % 2 == 0 else {})}}
        for i in numbers
    ]


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def encoded(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


def counts(report: BuildReport) -> tuple[int, int, int, int, int]:
    return report.n_read, report.n_encoded, report.n_updated, report.n_unchanged, report.n_skipped


def content(index: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return sorted((document.id, document.text, document.metadata) for document in index.find())


def test_a_folder_lines_and_parquet_give_the_index_that_add_gives_also_if_an_encoder_dies(
    tmp_path: Path, index: ShardedMuveraIndex, notes: Path
) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "deeper").mkdir(parents=True)
    texts = {f"deeper/{i}.md" if i % 2 else f"{i}.txt": passage(i) for i in range(6)}
    for name, text in texts.items():
        (corpus / name).write_text(text)
    write_lines(corpus / "lines.jsonl", lines_of(range(10, 300)))
    table = pa.Table.from_pylist(lines_of(range(300, 400)))
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=30)

    switch = Path(f"{notes}.die")
    switch.touch()
    encoder = NotingEncoder(notes, dies_at="passage-70 ")
    report = build(index, [corpus, str(tmp_path / "rows.parquet")], batch_size=8, n_encoders=2, encoder=encoder)
    assert not switch.exists()
    assert counts(report) == (396, 396, 0, 0, 0)
    assert report.n_tokens == 396 * 4
    assert set(report.seconds) == {"looking", "comparing", "encoding", "writing"}

    def origin(file: Path) -> dict[str, Any]:
        return {"path": str(file), ORIGIN: {"file": str(file)}}

    expected = [(str(corpus / name), text, origin(corpus / name)) for name, text in texts.items()]
    for i, line in enumerate(lines_of(range(10, 400)), start=10):
        place = origin(corpus / "lines.jsonl") if i < 300 else origin(tmp_path / "rows.parquet")
        expected.append((line["id"], line["text"], line["metadata"] | place))
    assert content(index) == sorted(expected, key=lambda document: document[0])
    with MuveraIndex.create(None, NotingEncoder()) as single:
        ids, given, metadatas = zip(*expected, strict=True)
        single.add(given, ids, metadatas)
        for options in ({"exact": True}, {"filter": {"n": {"$gte": 200}}}, {"mode": "hybrid"}):
            for query in ("owl fox", passage(277)):
                found, wanted = (place.search(query, 10, **options) for place in (index, single))
                assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted])
            assert found[0].id == wanted[0].id == "d277"


def test_only_what_has_changed_is_encoded(tmp_path: Path, index: ShardedMuveraIndex, notes: Path) -> None:
    lines = lines_of(range(50))
    path = write_lines(tmp_path / "corpus.jsonl", lines)
    build(index, path, batch_size=8)
    notes.unlink()
    lines[3]["text"] = "something else"
    lines[4]["metadata"]["n"] = 4.0
    write_lines(path, [*lines, *lines_of([50])])
    assert counts(build(index, path, batch_size=8, encoder=partial(NotingEncoder, notes))) == (51, 2, 1, 48, 0)
    assert sorted(encoded(notes)) == sorted(["something else", passage(50)])
    stored = {document.id: document for document in index.get(["d3", "d4"])}
    assert stored["d3"].text == "something else"
    assert repr(stored["d4"].metadata["n"]) == "4.0"


def test_a_build_that_was_killed_goes_on_where_it_stopped(ray_cluster: None, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "corpus.jsonl", lines_of(range(200)))
    folder, notes, later_notes = tmp_path / "index", tmp_path / "notes", tmp_path / "later_notes"
    command = [sys.executable, str(Path(__file__).with_name("interrupted_build.py"))]
    child = subprocess.Popen([*command, folder, path, notes, "passage-150 "], stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: child.poll() is not None or stored_texts(folder), DEADLINE)
        assert child.returncode is None, child.stderr and child.stderr.read()
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    # Encoders of the killed build may still write notes until Ray has ended them.
    with ShardedMuveraIndex.open(folder, NotingEncoder(later_notes)) as index:
        held = {document.text for document in index.find()}
        assert 0 < len(held) < 200
        report = build(index, path, batch_size=8)
        assert counts(report) == (200, 200 - len(held), 0, len(held), 0)
        assert sorted(encoded(later_notes)) == sorted({passage(i) for i in range(200)} - held)
        assert [(id, text) for id, text, _ in content(index)] == sorted((f"d{i}", passage(i)) for i in range(200))


def test_bad_lines_and_files_are_skipped_and_counted(tmp_path: Path, index: ShardedMuveraIndex) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02\xff" * 99)
    (tmp_path / "rows.parquet").write_bytes(b"no parquet")
    write_lines(tmp_path / "b.jsonl", [*lines_of([1, 2]), "{", {"id": "d9"}, {"text": ""}, *lines_of([2, 3])])
    write_lines(tmp_path / "c.jsonl", [{"id": "d3", "text": "too late"}])
    report = build(index, tmp_path)
    assert counts(report) == (5, 3, 0, 0, 8)
    by_name = {Path(path).name: n for path, n in report.skipped.items()}
    assert by_name == {"empty.txt": 1, "binary.txt": 1, "rows.parquet": 1, "b.jsonl": 4, "c.jsonl": 1}
    assert len(report.problems) == 8
    assert f"{tmp_path / 'c.jsonl'}:1: its id 'd3' is also the id of an earlier document" in report.problems
    assert [text for id, text, _ in content(index) if id == "d3"] == [passage(3)]
    with pytest.raises(
        InvalidInputError, match=r"(?s)6 files or lines cannot be used, and nothing was .*b\.jsonl:3: it is"
    ):
        build(index, tmp_path, on_error="raise")


def test_nothing_to_read_gives_an_empty_report(tmp_path: Path, index: ShardedMuveraIndex) -> None:
    write_lines(tmp_path / "empty.jsonl", [])
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    assert counts(build(index, tmp_path)) == (0, 0, 0, 0, 0)
    assert index.count() == 0


def test_an_error_of_the_encoder_ends_the_build_as_it_is(tmp_path: Path, index: ShardedMuveraIndex) -> None:
    path = write_lines(tmp_path / "corpus.jsonl", lines_of(range(3)))
    with pytest.raises(ConnectionError, match="no answer"):
        build(index, path, encoder=failing_encoder)
    with pytest.raises(EncoderMismatchError, match="noting"):
        build(index, path, encoder=OtherEncoder())
    assert index.count() == 0


class OtherEncoder(NotingEncoder):
    fingerprint = "other"


def failing_encoder() -> NotingEncoder:
    raise ConnectionError("no answer")


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "sources must be one or more paths"),
        (None, {}, "sources must be one or more paths"),
        ("missing", {}, "missing is not a folder and not a file that ends in"),
        ("corpus.xyz", {}, r"corpus.xyz is not a folder and not a file that ends in .txt, .*\.parquet"),
        (".", {}, "there are no files that end in"),
        (".", {"batch_size": 0}, "batch_size must be at least 1"),
        (".", {"n_encoders": "two"}, "n_encoders must be a whole number"),
        (".", {"num_gpus_per_encoder": -1}, "num_gpus_per_encoder must be a number of at least 0"),
        (".", {"num_gpus_per_encoder": 1, "n_encoders": 2}, "encoders need 2 GPUs, but the cluster has 0"),
        (".", {"on_error": "stop"}, "on_error must be one of 'skip', 'raise'"),
    ],
)
def test_what_cannot_be_built_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: ShardedMuveraIndex,
    sources: Any,
    options: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "corpus.xyz").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        build(index, sources, **options)


def stored_texts(folder: Path) -> list[str]:
    """What the shards of an index hold, which another process writes."""
    found: list[str] = []
    for manifest in folder.rglob("manifest.json"):
        with MuveraIndex.open(manifest.parent, NotingEncoder(), read_only=True) as shard:
            found += [document.text or "" for document in shard.find()]
    return found

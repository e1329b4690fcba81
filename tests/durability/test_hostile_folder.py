"""A folder that somebody made to do harm: opening it raises a MuveraError or works, and touches nothing outside."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import folder_format as layout
import numpy as np
import pytest
from damaged_folders import ENCODER, KINDS, answers, make, use, wrong

from muvera_core import check_index, repair_index
from muvera_core.errors import MuveraError, StageOneNotSavedWarning

# Far more than a small index needs beside the interpreter and its libraries.
MEMORY = 2 << 30
SECONDS = 30
OLD_FORMAT = Path(__file__).parents[1] / "core" / "data" / "format-1"
JOURNAL = "documents.sqlite-journal"
# What may be answered otherwise when stage one is forged with checksums that fit; it never makes up a document.
BY_STAGE_ONE = ("candidates", "filtered", "default", "diverse")


class Onlooker:
    """A child process with little memory and time, which opens folder after folder, so that it may die of one."""

    def __init__(self, temporary: Path) -> None:
        self._environment = {**os.environ, "TMPDIR": str(temporary)}
        self._child: subprocess.Popen[str] | None = None

    def look(self, folder: Path, kind: str) -> list[Any]:
        """What a folder answers for reading, for writing, and after repair; or the errors at opening."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self._environment,
            )
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        watchdog = threading.Timer(SECONDS, child.kill)
        watchdog.start()
        try:
            child.stdin.write(json.dumps([str(folder), kind]) + "\n")
            child.stdin.flush()
            reply = child.stdout.readline()
        finally:
            watchdog.cancel()
        if not reply:
            raise AssertionError(f"the process ended, or hung and was ended: {self.close()}")
        found = json.loads(reply)
        assert isinstance(found, list), found
        return found

    def close(self) -> str:
        """End the child. Returns how it ended."""
        child, self._child = self._child, None
        if child is None:
            return ""
        _, errors = child.communicate()
        return f"exit {child.returncode}: {errors[-3000:]}"


def main() -> None:
    """Be the child of an Onlooker."""
    logging.disable(logging.WARNING)  # nobody reads them, so that they would fill the pipe
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        folder, kind = json.loads(line)
        try:
            reply: Any = look_around(Path(folder), kind)
        except Exception:
            reply = traceback.format_exc()[-3000:]
        print(json.dumps(reply), flush=True)


def look_around(folder: Path, kind: str) -> list[Any]:
    use(kind)
    warnings.simplefilter("ignore", StageOneNotSavedWarning)
    found = [answers(folder, read_only=read_only, briefly=True) for read_only in (True, False)]
    for call in (check_index, repair):
        with suppress(MuveraError):
            call(folder)
    return [*found, answers(folder, read_only=False, briefly=True)]


def repair(folder: Path) -> None:
    repair_index(folder, ENCODER)


@pytest.fixture(scope="module")
def onlooker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Onlooker]:
    made = Onlooker(tmp_path_factory.mktemp("temporary"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: make(tmp_path_factory.mktemp("original"), kind) for kind in KINDS}


class Folder:
    """A copy of an index to forge, and what it must answer."""

    def __init__(self, original: Path, kind: str, path: Path, onlooker: Onlooker) -> None:
        self.original, self.kind, self.path, self._onlooker = original, kind, path, onlooker
        self.expected = answers(self.renewed(), read_only=True, briefly=True)

    def renewed(self) -> Path:
        """The folder, as it was before anything was forged."""
        shutil.rmtree(self.path, ignore_errors=True)
        return Path(shutil.copytree(self.original, self.path))

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.original.iterdir())

    def lives(self) -> list[Any]:
        """For forgeries whose answers are the forger's to say."""
        return self._onlooker.look(self.path, self.kind)

    def harmless(self, but: tuple[str, ...] = ()) -> list[Any]:
        """For forgeries that must be noticed or change nothing; ``but`` starts the names of answers that may differ."""
        found = self.lives()
        for one in found[:2]:
            assert not [name for name in wrong(one, self.expected) if not name.startswith(but or "-")]
        repaired = found[2]
        if isinstance(repaired, dict) and isinstance(self.expected, dict):
            assert all(document in self.expected["all"] for document in repaired["all"])
        return found


@pytest.fixture
def folder(originals: dict[str, Path], tmp_path: Path, onlooker: Onlooker) -> Folder:
    use("flat")
    return Folder(originals["flat"], "flat", tmp_path / "index", onlooker)


@pytest.fixture(params=KINDS)
def either(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path, onlooker: Onlooker) -> Folder:
    use(request.param)
    return Folder(originals[request.param], request.param, tmp_path / "index", onlooker)


@pytest.fixture
def graph(originals: dict[str, Path], tmp_path: Path, onlooker: Onlooker) -> Folder:
    use("hnsw")
    return Folder(originals["hnsw"], "hnsw", tmp_path / "index", onlooker)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file that nobody may read from or write to through the folder."""
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_bytes(b"secret" * 1000)
    yield path
    assert path.read_bytes() == b"secret" * 1000
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


# What stands in a file's place


def test_a_link_is_not_followed(either: Folder, outside: Path, tmp_path: Path) -> None:
    for name in [*either.names, JOURNAL, "stage_one.json.tmp", "manifest.json.tmp"]:
        place = either.renewed() / name
        copy = tmp_path / "copy"
        copy.write_bytes(place.read_bytes() if place.exists() else b"x" * 600)
        before = copy.read_bytes()
        place.unlink(missing_ok=True)
        place.symlink_to(copy)
        either.harmless()
        assert copy.read_bytes() == before, name
        either.renewed()
        place.unlink(missing_ok=True)
        place.symlink_to(outside)
        either.harmless()


@pytest.mark.parametrize("instead", ["pipe", "folder", "endless device"])
def test_what_is_no_file_is_not_waited_for(either: Folder, instead: str) -> None:
    for name in [*either.names, JOURNAL]:
        place = either.renewed() / name
        place.unlink(missing_ok=True)
        if instead == "pipe":
            os.mkfifo(place)
        elif instead == "folder":
            place.mkdir()
        else:
            place.symlink_to("/dev/zero")
        either.harmless()


# The manifest

MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "id with a path": lambda m: {**m, "index_id": "../outside/secret"},
    "encoder with a path": lambda m: {**m, "encoder": "/etc/passwd"},
    "precision with a path": lambda m: {**m, "token_precision": "../../x"},
    "many pooled to one": lambda m: {**m, "pool_factor": 10**12},
    "projection with a path": lambda m: {**m, "fde": {**m["fde"], "projection": "../x"}},
    "other settings": lambda m: {**m, "fde": {**m["fde"], "no_such": 1}, "files": ["../outside/secret"]},
    "wide": lambda m: {**m, "fde": {**m["fde"], "projection_dimension": 10**9}},
    "deep": lambda m: {**m, "fde": {**m["fde"], "num_simhash_projections": 60}},
    "many rounds": lambda m: {**m, "fde": {**m["fde"], "num_repetitions": 10**12}},
    "wide sketch": lambda m: {**m, "fde": {**m["fde"], "final_projection_dimension": 10**12}},
    "wide tokens": lambda m: {**m, "fde": {**m["fde"], "dimension": 10**12, "projection_dimension": None}},
    "negative": lambda m: {**m, "fde": {**m["fde"], "dimension": -1}},
    "huge seed": lambda m: {**m, "fde": {**m["fde"], "seed": 10**4000}},
    "huge version": lambda m: {**m, "format_version": 10**4000},
    "version as text": lambda m: {**m, "format_version": "2; DROP TABLE documents"},
    "no settings": lambda m: {**m, "fde": []},
    "list": lambda m: [m],
    "types": lambda m: {key: [value] for key, value in m.items()},
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_forged_manifest_does_no_harm(folder: Folder, change: Callable[[Any], Any], outside: Path) -> None:
    layout.forge_manifest(folder.path, change)
    folder.harmless()


def test_a_manifest_of_a_gigabyte_is_not_read(folder: Folder) -> None:
    os.truncate(folder.path / "manifest.json", 1 << 30)
    folder.harmless()


@pytest.mark.parametrize("name", ["manifest.json", "stage_one.json"])
def test_strange_json_does_no_harm(folder: Folder, name: str) -> None:
    deep = ["[" * 60_000, '{"a":' * 10_000, "1" * 60_000]
    for text in [*deep, "1e999999", "NaN", '"\\ud800"', "{}", "null", "\ufeff{}"]:
        (folder.renewed() / name).write_text(text)
        folder.harmless()


# The database

SQL: dict[str, str] = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM documents; END",
    "trigger on state": "CREATE TRIGGER t BEFORE INSERT ON state BEGIN SELECT RAISE(ABORT, 'no'); END",
    "view": "CREATE VIEW v AS SELECT * FROM documents",
    "table": "CREATE TABLE more (x)",
    "index": "CREATE INDEX i ON documents (text)",
    "index with an expression": "CREATE INDEX i ON documents (length(text))",
    "index that calls": "CREATE INDEX i ON documents (text); PRAGMA writable_schema = ON; UPDATE sqlite_master "
    "SET sql = 'CREATE INDEX i ON documents (load_extension(''/tmp/x.so''))' WHERE name = 'i'",
    "schema that is none": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE x'",
    "table elsewhere": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 10000000",
    "tables in one place": "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 3",
    "column": "ALTER TABLE documents ADD COLUMN more TEXT DEFAULT 'x'",
    "generated column": "ALTER TABLE documents ADD COLUMN more AS (hex(zeroblob(100000000)))",
    "renamed table": "ALTER TABLE documents RENAME TO others",
    "view for a table": "ALTER TABLE documents RENAME TO o; CREATE VIEW documents AS SELECT * FROM o",
    "no table": "DROP TABLE fields",
    "wal": "PRAGMA journal_mode = WAL",
    "id of another type": "UPDATE documents SET id = x'00ff' WHERE key % 2",
    "text of another type": "UPDATE documents SET text = 3.5 WHERE key % 2",
    "text that is no text": "UPDATE documents SET text = CAST(x'ff80' AS TEXT) WHERE key % 2",
    "metadata of another type": "UPDATE documents SET metadata = x'7b7d' WHERE key % 2",
    "metadata that is no object": "UPDATE documents SET metadata = '[1]' WHERE key % 2",
    "metadata that is deep": "UPDATE documents SET metadata = replace(hex(zeroblob(50000)), '0', '[') WHERE key = 5",
    "metadata that is long": "UPDATE documents SET metadata = hex(zeroblob(5000000)) WHERE key = 5",
    "huge text": "UPDATE documents SET text = hex(zeroblob(5000000)) WHERE key = 5",
    "checksum of another type": "UPDATE documents SET checksum = 'x' WHERE key % 2",
    "field of another type": "UPDATE fields SET value = x'00' WHERE kind = 'number'",
    "field of nobody": "INSERT INTO fields VALUES ('n', 'number', 3, 999999)",
    "field with a key of another type": "INSERT INTO fields VALUES ('n', 'number', 3, 'x')",
    "state of another type": "UPDATE state SET value = 'x'",
    "state with lists": "UPDATE state SET value = x'00'",
    "huge state": "UPDATE state SET value = 9223372036854775807",
    "negative state": "UPDATE state SET value = -1",
    "no state": "DELETE FROM state",
    "state as floats": "UPDATE state SET value = 1e300",
    "huge named value": "INSERT INTO state VALUES ('mean_token', zeroblob(5000000))",
}


@pytest.mark.parametrize("sql", SQL.values(), ids=SQL.keys())
def test_a_forged_database_does_no_harm(folder: Folder, sql: str) -> None:
    """Without checksums to go with it: what is altered must be noticed."""
    layout.run_sql(folder.path, sql)
    folder.harmless()


OLD_SQL: dict[str, str] = {
    "nothing": "SELECT 1",
    "view for a table": "ALTER TABLE documents RENAME TO o; CREATE VIEW documents AS SELECT * FROM o",
    "view for state": "ALTER TABLE state RENAME TO o; CREATE VIEW state AS SELECT * FROM o",
    "view beside": "CREATE VIEW v AS SELECT 1",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM documents; END",
    "virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
    "generated column": "ALTER TABLE documents ADD COLUMN more AS (hex(zeroblob(100000000)))",
    "generated column for a real one": "ALTER TABLE documents RENAME COLUMN text TO old; "
    "ALTER TABLE documents ADD COLUMN text AS (hex(zeroblob(100000000)))",
    "place beyond the end": "UPDATE documents SET first_token = 4611686018427387904",
    "many tokens": "UPDATE documents SET n_tokens = 4611686018427387904",
    "place of another type": "UPDATE documents SET first_token = 'x'",
    "huge state": "UPDATE state SET value = 4611686018427387904",
    "metadata that is deep": "UPDATE documents SET metadata = replace(hex(zeroblob(50000)), '0', '[')",
    "id of another type": "UPDATE documents SET id = x'00ff' WHERE key = 1",
    "text that is no text": "UPDATE documents SET text = CAST(x'ff80' AS TEXT)",
}


@pytest.mark.parametrize(("name", "sql"), OLD_SQL.items(), ids=OLD_SQL.keys())
def test_a_forged_database_of_the_old_format_does_no_harm(folder: Folder, name: str, sql: str) -> None:
    shutil.rmtree(folder.path)
    shutil.copytree(OLD_FORMAT, folder.path)
    manifest = folder.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "encoder": ENCODER.fingerprint}))
    layout.run_sql(folder.path, sql)
    found = folder.lives()
    assert found[0] == "UnsupportedFormatError"
    assert isinstance(found[1], dict) == (name == "nothing")


PLACES: dict[str, tuple[int, int]] = {
    "negative": (-1, 2),
    "far": (2**40, 2),
    "none": (0, 0),
    "minus one": (0, -1),
    "huge": (0, 2**62),
    "overflow": (2**62, 2**62),
    "all at once": (0, 2**40),
    "beyond the end": (layout.LAST_ROW, 2),
}


@pytest.mark.parametrize(("first", "count"), PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("n_rows", [None, 2**62])
def test_forged_places_of_tokens_do_no_harm(folder: Folder, first: int, count: int, n_rows: int | None) -> None:
    """With checksums that fit. What is answered is the forger's to say, but the process lives on."""
    layout.forge_directory(folder.path, first, count, n_rows)
    folder.lives()


@pytest.mark.parametrize("n_documents", [2, 100])
def test_rows_that_several_documents_claim_do_no_harm(either: Folder, n_documents: int) -> None:
    """With checksums that fit."""
    layout.share_rows(either.path, n_documents)
    either.lives()


@pytest.mark.parametrize(
    "name", ["version", "next_key", "n_token_rows", "generation", "digest", "mean_token", "manifest"]
)
def test_forged_named_values_do_no_harm(folder: Folder, name: str, outside: Path) -> None:
    """With a checksum that fits."""
    for value in ("../outside/secret", -1, 2**63 - 1, 1.5, b"\xff" * 64):
        layout.forge_state(folder.renewed(), {name: value})
        folder.lives()


def test_an_altered_named_value_is_noticed(folder: Folder) -> None:
    """Without a checksum that fits, and small enough to be possible."""
    layout.run_sql(folder.path, "UPDATE state SET value = value + 1 WHERE name = 'version'")
    assert folder.harmless()[:2] == ["CorruptIndexError"] * 2


@pytest.mark.parametrize(
    "value", ["x" * 64, 3, 2.5, b"", b"\0" * 60, b"\0" * 68, b"\xff" * 64], ids=lambda value: repr(value)[:12]
)
def test_a_forged_mean_token_is_refused(folder: Folder, value: Any) -> None:
    layout.forge_manifest(folder.path, lambda m: {**m, "fde": {**m["fde"], "center": True}})
    assert isinstance(folder.lives()[0], dict)
    layout.forge_state(folder.path, {"mean_token": value})
    assert folder.lives()[0] == "CorruptIndexError"


def test_a_journal_that_names_another_file_deletes_nothing(folder: Folder, outside: Path) -> None:
    layout.write_journal(folder.path, outside)
    folder.harmless()


def test_a_journal_of_noise_does_no_harm(folder: Folder) -> None:
    (folder.path / JOURNAL).write_bytes(np.random.default_rng(0).bytes(5000))
    folder.harmless()
    journal = folder.renewed() / JOURNAL
    journal.touch()
    os.truncate(journal, 1 << 26)
    folder.harmless()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_files_of_a_write_ahead_log_are_refused(folder: Folder, suffix: str) -> None:
    with sqlite3.connect(folder.path.with_name("other")) as db:
        db.executescript("PRAGMA journal_mode = WAL; CREATE TABLE forged (x)")
        real = folder.path.with_name(f"other{suffix}").read_bytes()
    db.close()
    for content in (b"", b"x" * 5000, real):
        (folder.renewed() / f"documents.sqlite{suffix}").write_bytes(content)
        assert folder.harmless()[:2] == ["CorruptIndexError"] * 2


# Stage one

DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "path": lambda d: {**d, "files": {"../outside/secret": 1, **d["files"]}},
    "only a path": lambda d: {**d, "files": {"/etc/passwd": 1}},
    "kind": lambda d: {**d, "kind": "../x"},
    "kind of another type": lambda d: {**d, "kind": ["flat"]},
    "huge": lambda d: {**d, "n": 10**18, "count": 10**18, "dimension": 10**18},
    "files as list": lambda d: {**d, "files": list(d["files"])},
    "no files": lambda d: {**d, "files": {}},
    "types": lambda d: dict.fromkeys(d, 3),
    "list": lambda d: [d],
}


@pytest.mark.parametrize("change", DESCRIPTIONS.values(), ids=DESCRIPTIONS.keys())
def test_a_forged_description_does_no_harm(either: Folder, change: Callable[[Any], Any], outside: Path) -> None:
    path = either.path / "stage_one.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    either.harmless()


HEADERS: dict[str, tuple[int, str, Any]] = {
    "capacity": (8, "<Q", 2**60),
    "large capacity": (8, "<Q", 2**33),
    "elements": (16, "<Q", 2**60),
    "no elements": (16, "<Q", 0),
    "one element more": (16, "<Q", 25),
    "element size": (24, "<Q", 2**40),
    "no element size": (24, "<Q", 0),
    "label offset": (32, "<Q", 2**40),
    "data offset": (40, "<Q", 2**40),
    "top level": (48, "<i", 2**30),
    "negative level": (48, "<i", -1),
    "entry point": (52, "<I", 2**31),
    "links": (56, "<Q", 2**40),
    "ground links": (64, "<Q", 2**40),
    "own links": (72, "<Q", 2**40),
    "scale": (80, "<d", float("nan")),
    "huge scale": (80, "<d", 1e300),
    "negative scale": (80, "<d", -1.0),
    "ef_construction": (88, "<Q", 2**60),
}


@pytest.mark.parametrize(("place", "layout_of", "value"), HEADERS.values(), ids=HEADERS.keys())
def test_a_graph_with_a_forged_header_does_no_harm(graph: Folder, place: int, layout_of: str, value: Any) -> None:
    path = layout.graph_file(graph.path)
    content = bytearray(path.read_bytes())
    struct.pack_into(layout_of, content, place, value)
    path.write_bytes(content)
    layout.vouch_for_stage_one(graph.path)
    graph.harmless(but=BY_STAGE_ONE)


def test_a_graph_without_anything_in_it_does_no_harm(graph: Folder) -> None:
    path = layout.graph_file(graph.path)
    content = bytearray(path.read_bytes()[:96])
    for capacity in (0, 1000):
        struct.pack_into("<QQ", content, 8, capacity, 0)
        struct.pack_into("<iI", content, 48, -1, 2**32 - 1)  # as hnswlib saves a graph without elements
        path = layout.graph_file(graph.renewed())
        path.write_bytes(content)
        layout.vouch_for_stage_one(graph.path)
        graph.harmless(but=BY_STAGE_ONE)


def test_a_graph_with_forged_links_does_no_harm(graph: Folder) -> None:
    """Words all over the file lead far out of it, a few at a time."""
    content = layout.graph_file(graph.path).read_bytes()
    rng = np.random.default_rng(0)
    words = rng.permutation(np.arange(96, len(content) - 4, 4))
    for some in np.array_split(words, 6):
        forged = bytearray(content)
        for place in some[:: max(1, len(some) // 40)]:
            struct.pack_into("<I", forged, int(place), int(rng.choice([2**31, 2**32 - 1, 1000, 0xFFFF])))
        layout.graph_file(graph.renewed()).write_bytes(forged)
        layout.vouch_for_stage_one(graph.path)
        graph.harmless(but=BY_STAGE_ONE)


@pytest.mark.parametrize("word", [2**32 - 1, 1000])
def test_a_graph_with_one_forged_link_does_no_harm(graph: Folder, word: int) -> None:
    """The first element's number of links, its first link, and the lists above the ground."""
    content = layout.graph_file(graph.path).read_bytes()
    for place in (96, 100, len(content) - 4, len(content) - 68):
        forged = bytearray(content)
        struct.pack_into("<I", forged, place, word)
        layout.graph_file(graph.renewed()).write_bytes(forged)
        layout.vouch_for_stage_one(graph.path)
        graph.harmless(but=BY_STAGE_ONE)


@pytest.mark.parametrize("suffix", [".keys", ".scales", ".codes"])
def test_arrays_of_other_sizes_and_values_do_no_harm(folder: Folder, suffix: str) -> None:
    name = layout.stage_one_file(folder.path, suffix).name
    original = (folder.path / name).read_bytes()
    for forged in (b"", original[: len(original) // 2], original * 2, bytes(len(original)), b"\xff" * len(original)):
        (folder.renewed() / name).write_bytes(forged)
        layout.vouch_for_stage_one(folder.path)
        folder.harmless(but=BY_STAGE_ONE)


# Things lying about


class Payload:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_pickles_are_never_loaded(folder: Folder, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    payload = pickle.dumps(Payload(trace))
    array = np.empty(1, dtype=object)
    array[0] = Payload(trace)
    for name in ("stage_one_keys.npy", "stage_one_vectors.npy", "tokens.npy", "extra.pkl", "index.pickle", "model.bin"):
        (folder.path / name).write_bytes(payload)
        np.save(folder.path / f"object-{name}.npy", array, allow_pickle=True)
    for path in layout.stage_one_files(folder.path):
        np.save(folder.path / "forged.npy", array, allow_pickle=True)
        (folder.path / "forged.npy").replace(path)
    layout.vouch_for_stage_one(folder.path)
    folder.harmless()
    assert not trace.exists()


def test_a_model_in_the_folder_is_never_loaded(folder: Folder, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"import os; os.mkdir({str(trace)!r})"
    for name in ("modeling.py", "encoder.py", "sitecustomize.py", "muvera_core.py", "numpy.py", "conftest.py"):
        (folder.path / name).write_text(code)
    config = '{"auto_map": {"AutoModel": "modeling.Model"}, "architectures": ["Model"]}'
    (folder.path / "config.json").write_text(config)
    (folder.path / "encoder.json").write_text('{"files": {}}')
    (folder.path / "model.onnx").write_bytes(b"x")
    folder.harmless()
    assert not trace.exists()


def test_strange_names_do_no_harm(folder: Folder) -> None:
    for name in ("tokens-.bin", "tokens-99999999999999999999.bin", "tokens--1.bin", "tokens-1.bin", "a\nb", "é", "-rf"):
        (folder.path / name).write_bytes(b"x")
    (folder.path / "tokens-7.bin").mkdir()
    (folder.path / "repair-x").symlink_to("/")
    assert folder.harmless() == [folder.expected] * 3


# What watches over all of this


def test_an_onlooker_that_dies_or_hangs_is_noticed(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder.path))
    (folder.path / "sitecustomize.py").write_text("import os; os.abort()")
    onlooker = Onlooker(tmp_path)
    with pytest.raises(AssertionError, match="exit -6"):
        onlooker.look(folder.path, "flat")
    (folder.path / "sitecustomize.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setitem(globals(), "SECONDS", 1)
    with pytest.raises(AssertionError, match="exit -9"):
        onlooker.look(folder.path, "flat")
    monkeypatch.undo()
    sane = Onlooker(tmp_path)
    assert sane.look(folder.path, "flat")[0] == folder.expected
    sane.close()


if __name__ == "__main__":
    main()

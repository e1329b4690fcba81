"""Passages whose vectors are in another database, and whose tokens are in an index; see the two examples."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muvera_core import MuveraIndex

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
TEXTS = {
    "owl": "Owls hunt at night.",
    "heron": "Herons stand still in shallow water and wait for fish.",
    "o'ant": "Ants live in colonies.",
}
QUESTION = "Which bird is active after dark?"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Database:
    """One of the examples, with the calls that they share."""

    def __init__(self, passages: Any, add: Callable[[dict[str, str]], None], at_most: Callable[[int], Any]) -> None:
        self.passages, self.add, self._at_most = passages, add, at_most

    def found(self, query: str, most_words: int = 100, **options: Any) -> list[str]:
        return [hit.id for hit in self.passages.search(query, **options, **self._at_most(most_words))]


@pytest.fixture(params=["qdrant", "lancedb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with MuveraIndex.create(None) as index:
        if request.param == "qdrant":
            qdrant = pytest.importorskip("qdrant_client", reason="needs qdrant-client")
            models = qdrant.models
            client = qdrant.QdrantClient(path=str(tmp_path))
            passages = load("qdrant_stage_one").Passages(client, index)

            def at_most(n: int) -> dict[str, Any]:
                words = models.FieldCondition(key="n_words", range=models.Range(lte=n))
                return {"filter": models.Filter(must=[words])}

            def add(texts: dict[str, str]) -> None:
                payloads = [{"n_words": len(text.split())} for text in texts.values()]
                passages.add(list(texts.values()), list(texts), payloads)

            yield Database(passages, add, at_most)
            client.close()
        else:
            pytest.importorskip("lancedb", reason="needs lancedb")
            passages = load("lancedb_stage_one").Passages(tmp_path, index)
            yield Database(
                passages,
                lambda texts: passages.add(list(texts.values()), list(texts)),
                lambda n: {"where": f"n_words <= {n}"},
            )


@pytest.mark.parametrize(("name", "package"), [("qdrant", "qdrant_client"), ("lancedb", "lancedb")])
def test_the_example_runs(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(package, reason=f"needs {package}")
    monkeypatch.setattr("sys.argv", [name, "where are the winter olympics", "--most-words", "120"])
    load(f"{name}_stage_one").main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "nq-49: 2018 Winter Olympics" in lines[0]
    assert lines[-1] == "59 vectors, 59 passages with tokens"


def test_passages_are_ranked_by_exact_maxsim(database: Database) -> None:
    database.add(TEXTS)
    hits = database.passages.search(QUESTION)
    assert hits == database.passages.index.search(QUESTION, 3, exact=True)


def test_the_database_filters(database: Database) -> None:
    database.add(TEXTS)
    assert database.found("fish in water", most_words=4, k=1) != ["heron"]
    assert database.found("fish in water", k=1) == ["heron"]


def test_the_database_chooses_the_candidates(database: Database) -> None:
    database.add(TEXTS)
    assert database.found(QUESTION, n_candidates=1) == ["owl"]


def test_a_passage_is_replaced_and_deleted_in_both(database: Database) -> None:
    database.add(TEXTS)
    database.add({"owl": "Owls fly without a sound."})
    assert database.found("flight without noise", k=1) == ["owl"]
    [document] = database.passages.index.get("owl")
    assert document.text == "Owls fly without a sound."
    database.passages.delete(["o'ant", "unknown"])
    assert sorted(database.found("ants")) == ["heron", "owl"]
    assert len(database.passages.index) == 2


def test_adding_again_repairs_what_the_database_lacks(database: Database) -> None:
    database.passages.index.add(list(TEXTS.values()), list(TEXTS))  # and then the process ended
    assert database.found(QUESTION) == []
    database.add(TEXTS)
    assert sorted(database.found(QUESTION)) == sorted(TEXTS)


def test_a_text_with_nothing_to_match_is_left_out(database: Database) -> None:
    with pytest.warns(UserWarning, match="skipped 1 of 4 texts"):
        database.add({**TEXTS, "blank": " "})
    assert sorted(database.found(QUESTION, k=9)) == sorted(TEXTS)

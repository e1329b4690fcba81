"""An index over shards in actors of Ray gives what one index gives."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs muvera-core[ray]")

from muvera_core import MuveraIndex, TokenEmbeddings
from muvera_core.distributed import ClusterOptions, ShardedMuveraIndex
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import (
    EncoderMismatchError,
    IndexClosedError,
    IndexExistsError,
    IndexLockedError,
    InvalidInputError,
    ReadOnlyIndexError,
    SkippedTextWarning,
)
from muvera_core.evaluation.collections import BeirCollection

N = 300
OPTIONS = ClusterOptions(n_replicas=1)
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded") / "index"


@pytest.fixture(scope="module")
def sharded(
    ray_cluster: None, encoder: BundledEncoder, nq: BeirCollection, nq_tokens: TokenEmbeddings, folder: Path
) -> Iterator[ShardedMuveraIndex]:
    with ShardedMuveraIndex.create(folder, n_shards=2, options=OPTIONS) as index:
        tokens = [nq_tokens[i] for i in range(N)]
        metadatas = [{"title": title} for title in nq.titles[:N]]
        index.add_embeddings(tokens, ids=nq.ids[:N], texts=nq.texts[:N], metadatas=metadatas)
        yield index


@pytest.mark.parametrize("mode", ["late", "hybrid", "lexical"])
def test_searches_find_what_one_index_finds(
    sharded: ShardedMuveraIndex, nq_index: MuveraIndex, nq_questions: dict[str, str], mode: str
) -> None:
    for question in list(nq_questions.values())[:8]:
        expected = nq_index.search(question, mode=mode, exact=True, with_passages=True)  # type: ignore[arg-type]
        got = sharded.search(question, mode=mode, exact=True, with_passages=True)  # type: ignore[arg-type]
        if mode == "late":
            assert got == expected
        else:  # BM25 takes the mean length of a shard's documents
            assert got[0].id == expected[0].id
            assert got[0].score == pytest.approx(expected[0].score, rel=0.05)


def test_texts_are_encoded_by_the_shards(encoder: BundledEncoder, tmp_path: Path) -> None:
    with ShardedMuveraIndex.open_or_create(tmp_path / "i", n_shards=2) as index:
        with pytest.warns(SkippedTextWarning):
            ids = index.add(
                ["Owls hunt at night.", "Ants live in colonies.", " "], metadatas=[{"n": 1}, {"n": 2}, None]
            )
        assert index.search("Which bird is active after dark?", 1)[0].id == ids[0]
        assert index.update_metadata(ids[0], {"n": 5}) == 1
        assert [document.id for document in index.find({"n": 5})] == [ids[0]]
        assert [document.id for document in index.iterate(batch_size=1)] != []
        assert index.delete(ids[0]) == 1
        assert len(index) == 1
        assert index.encoder.fingerprint == encoder.fingerprint
    with pytest.raises(IndexClosedError):
        index.search("owls")
    with pytest.raises(InvalidInputError, match="has 2 shards, got n_shards=3"):
        ShardedMuveraIndex.open_or_create(tmp_path / "i", n_shards=3)
    with ShardedMuveraIndex.open_or_create(tmp_path / "i", n_shards=2) as index:
        assert index.get(ids[1])[0].text == "Ants live in colonies."


def test_one_handle_writes_and_others_read(sharded: ShardedMuveraIndex, folder: Path) -> None:
    with pytest.raises(IndexLockedError):
        ShardedMuveraIndex.open(folder)
    with pytest.raises(IndexExistsError):
        ShardedMuveraIndex.create(folder, n_shards=2)
    with ShardedMuveraIndex.open(folder, read_only=True) as reader:
        assert len(reader) == len(sharded)
        sharded.add(["A text that comes later."], ids=["later"])
        assert "later" in reader
        with pytest.raises(ReadOnlyIndexError):
            reader.delete("later")
        sharded.delete("later")
        assert "later" not in reader


def test_a_handle_can_be_passed_to_other_processes(sharded: ShardedMuveraIndex) -> None:
    import ray

    with pickle.loads(pickle.dumps(sharded)) as copy:  # noqa: S301
        assert copy.search("who wrote", 3) == sharded.search("who wrote", 3)
    assert len(sharded) == N

    @ray.remote(num_cpus=0)
    def count(index: ShardedMuveraIndex) -> int:
        return len(index)

    assert ray.get(count.remote(sharded)) == len(sharded)


def test_an_encoder_that_the_index_was_not_made_with_is_refused(sharded: ShardedMuveraIndex, folder: Path) -> None:
    with pytest.raises(EncoderMismatchError):
        ShardedMuveraIndex.open(folder, BundledEncoder(dimension=32), read_only=True)


def test_members_say_where_they_are(sharded: ShardedMuveraIndex) -> None:
    members = sharded.members()
    assert [(member.shard, member.role, member.is_alive) for member in members] == [
        (shard, role, True) for shard in (0, 1) for role in ("primary", "replica")
    ]
    assert repr(sharded).endswith("index': 2 shards>")
    assert sum(member.n_documents or 0 for member in members if member.role == "primary") == N

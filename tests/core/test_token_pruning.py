"""Pruning a document's tokens, and what an index that keeps a share of them does with the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera_core import MuveraIndex, TokenEmbeddings, check_index, maxsim, repair_index
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings, TokenReduction
from muvera_core.encoders.token_pruning import kept_length, kept_places, prune_tokens
from muvera_core.errors import CorruptIndexError, InvalidInputError
from muvera_core.maintenance import read_info
from muvera_core.storage.manifest import Manifest, _checksum
from muvera_core.token_embeddings import FloatArray, unit_length

D = 8
ENCODER = PrecomputedEmbeddings(D, "random")
OWLS = "Owls hunt at night and sleep by day. They hear a mouse under the snow and fly without a sound."
ANTS = "Ants live in colonies, carry leaves that are heavier than they are, and farm mushrooms on them."
QUESTION = "which bird hunts a mouse at night"


def unit_tokens(seed: int, n_tokens: int, dimension: int = D) -> FloatArray:
    vectors = np.random.default_rng(seed).standard_normal((n_tokens, dimension)).astype(np.float32)
    return unit_length(vectors)


def kept_one_by_one(tokens: FloatArray, n_kept: int) -> list[int]:
    """The rule as it is defined: try each token, and drop the last whose going makes the sum of distances smallest."""
    left = list(range(len(tokens)))

    def total(kept: list[int]) -> float:
        apart = np.linalg.norm((tokens[:, None] - tokens[None, kept]).astype(np.float64), axis=2)
        return round(float(apart.min(axis=1).sum()), 5)

    while len(left) > n_kept:
        left.remove(min(left[:0:-1], key=lambda i: total([j for j in left if j != i])))
    return left


# Pruning


@pytest.mark.parametrize("keep_tokens", [0.9, 0.5, 0.1])
def test_the_token_goes_that_the_others_stand_in_for_best(keep_tokens: float) -> None:
    tokens = unit_tokens(3, 30)
    assert kept_places(tokens, keep_tokens).tolist() == kept_one_by_one(tokens, int(30 * keep_tokens))


def test_kept_vectors_are_those_that_were_given_in_their_order() -> None:
    tokens = unit_tokens(0, 21)
    pruned = prune_tokens(TokenEmbeddings.from_list([tokens]), 0.6)[0]
    assert np.array_equal(pruned, tokens[kept_places(tokens, 0.6)])
    assert np.array_equal(pruned[0], tokens[0])


def test_copies_go_first_and_the_last_of_them_first() -> None:
    tokens = unit_tokens(1, 6)
    repeated = np.concatenate([tokens, tokens])
    assert np.array_equal(prune_tokens(TokenEmbeddings.from_list([repeated]), 0.5)[0], tokens)


def test_a_share_of_one_gives_the_same_object() -> None:
    embeddings = TokenEmbeddings.from_list([unit_tokens(0, 5)])
    assert prune_tokens(embeddings, 1) is embeddings


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 10, 31, 1024, 1025, 2500])
@pytest.mark.parametrize("keep_tokens", [0.1, 0.75, 0.999])
def test_the_number_of_vectors_is_known_beforehand(n_tokens: int, keep_tokens: float) -> None:
    if n_tokens > 1000 and keep_tokens < 0.75:
        pytest.skip("slow, and nothing new")
    kept = kept_places(unit_tokens(0, n_tokens), keep_tokens)
    assert len(kept) == kept_length(n_tokens, keep_tokens) >= 1
    assert kept[0] == 0
    assert (np.diff(kept) > 0).all()


def test_seven_tenths_of_ten_tokens_are_seven() -> None:
    assert kept_length(10, 0.7) == 7


def test_a_document_is_pruned_alike_whatever_is_beside_it() -> None:
    documents = [unit_tokens(seed, 5 + 7 * seed) for seed in range(8)]
    together = prune_tokens(TokenEmbeddings.from_list(documents), 0.5)
    for document, pruned in zip(documents, together, strict=True):
        assert np.array_equal(prune_tokens(TokenEmbeddings.from_list([document]), 0.5)[0], pruned)


def test_zeros_and_tokens_of_any_length_are_pruned() -> None:
    tokens = np.concatenate([np.zeros((3, D), np.float32), 1e-6 * unit_tokens(0, 3), 1e12 * unit_tokens(1, 3)])
    assert kept_places(tokens, 0.75).tolist() == [0, 3, 4, 5, 6, 7, 8]
    assert len(prune_tokens(TokenEmbeddings.from_list([np.zeros((4, D))]), 0.5)[0]) == 2


def test_pruning_loses_less_than_dropping_at_random(encoder: BundledEncoder) -> None:
    documents, queries = encoder.encode_documents([OWLS, ANTS]), encoder.encode_queries([QUESTION, "what do ants eat"])
    pruned = prune_tokens(documents, 0.5)
    random = np.random.default_rng(0)
    at_random = TokenEmbeddings.from_list(
        [
            tokens[np.sort(random.permutation(len(tokens))[: len(kept)])]
            for tokens, kept in zip(documents, pruned, strict=True)
        ]
    )
    for query in queries:
        assert maxsim(query, pruned).sum() > maxsim(query, at_random).sum()


@pytest.mark.parametrize("share", [0, 0.05, 1.01, -1, float("nan"), "half", None, True])
def test_a_share_outside_its_range_is_refused(share: Any) -> None:
    with pytest.raises(InvalidInputError, match="keep_tokens"):
        prune_tokens(TokenEmbeddings.from_list([unit_tokens(0, 5)]), share)
    with pytest.raises(InvalidInputError, match="keep_tokens"):
        MuveraIndex.create(None, ENCODER, keep_tokens=share)


# An index that keeps a share of its tokens


def test_an_index_prunes_what_it_is_given_and_remembers_to(tmp_path: Path, encoder: BundledEncoder) -> None:
    expected = prune_tokens(encoder.encode_documents([OWLS, ANTS]), 0.6)
    with MuveraIndex.create(tmp_path / "index", encoder, keep_tokens=0.6) as index:
        index.add([OWLS], ids=["owls"])
        assert index.n_tokens == len(expected[0])
    with MuveraIndex.open(tmp_path / "index", encoder) as index:
        assert index.keep_tokens == 0.6
        index.add_embeddings(encoder.encode_documents([ANTS]), ids=["ants"])
        assert index.n_tokens == len(expected.vectors)
        scores = maxsim(encoder.encode_queries([QUESTION])[0], expected)
        found = {hit.id: hit.score for hit in index.search(QUESTION)}
        assert found == {"owls": pytest.approx(scores[0], abs=0.05), "ants": pytest.approx(scores[1], abs=0.05)}
    info = read_info(tmp_path / "index")
    assert info.as_json()["keep_tokens"] == 0.6


def test_the_share_of_an_index_cannot_be_changed(tmp_path: Path) -> None:
    with MuveraIndex.creating(tmp_path / "index", ENCODER, keep_tokens=0.5):
        pass
    for keep_tokens in (None, 0.5):
        with MuveraIndex.open_or_create(tmp_path / "index", ENCODER, keep_tokens=keep_tokens) as index:
            assert index.keep_tokens == 0.5
    with pytest.raises(InvalidInputError, match=r"keep_tokens=0\.5, which cannot be changed, got 0\.8"):
        MuveraIndex.open_or_create(tmp_path / "index", ENCODER, keep_tokens=0.8)
    with MuveraIndex.open_or_create(tmp_path / "other", ENCODER, keep_tokens=0.8) as index:
        assert index.keep_tokens == 0.8


def test_a_manifest_without_a_share_keeps_all_and_one_with_a_wrong_share_is_damaged(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path, ENCODER).close()
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    assert content.pop("keep_tokens") == 1.0
    path.write_text(json.dumps({**content, "checksum": _checksum(content)}))
    assert Manifest.read(tmp_path).keep_tokens == 1.0
    for wrong in (0, "all", None, True):
        changed = {**content, "keep_tokens": wrong}
        path.write_text(json.dumps({**changed, "checksum": _checksum(changed)}))
        with pytest.raises(CorruptIndexError):
            Manifest.read(tmp_path)


def test_a_copy_has_the_same_tokens_and_goes_on_pruning(tmp_path: Path) -> None:
    documents, query = [unit_tokens(seed, 31) for seed in range(20)], unit_tokens(99, 5)
    with MuveraIndex.create(None, ENCODER, keep_tokens=0.5) as index:
        index.add_embeddings(documents)
        index.copy_to(tmp_path / "copy")
        with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
            assert copy.search_embeddings(query, k=20) == index.search_embeddings(query, k=20)
            copy.add_embeddings(documents[:1])
            assert copy.n_tokens == 21 * 16


def test_lost_tokens_are_pruned_again(tmp_path: Path, encoder: BundledEncoder) -> None:
    with MuveraIndex.create(tmp_path / "index", encoder, keep_tokens=0.5) as index:
        index.add([OWLS, ANTS], ids=["owls", "ants"])
        before, n_tokens = index.search(QUESTION), index.n_tokens
    (file,) = (tmp_path / "index").glob("tokens-*.bin")
    file.write_bytes(b"")
    assert set(repair_index(tmp_path / "index", encoder).reencoded) == {"owls", "ants"}
    assert check_index(tmp_path / "index").ok
    with MuveraIndex.open(tmp_path / "index", encoder) as index:
        assert index.n_tokens == n_tokens
        assert index.search(QUESTION) == before


@pytest.mark.parametrize("keep_tokens", [0.8, 0.5])
def test_explain_names_the_token_that_was_kept(encoder: BundledEncoder, keep_tokens: float) -> None:
    tokens, spans = encoder.encode_documents([OWLS])[0], encoder.document_spans(OWLS).tolist()
    kept = kept_places(tokens, keep_tokens)
    query = encoder.encode_queries([QUESTION])[0]
    with MuveraIndex.create(None, encoder, keep_tokens=keep_tokens) as index:
        index.add([OWLS], ids=["owls"])
        best = kept[(query @ index.get_embeddings("owls")["owls"].T).argmax(axis=1)]  # as they were rounded
        (hit,) = index.search(QUESTION)
        matches = index.explain(QUESTION, "owls")
    assert sum(match.similarity for match in matches) == pytest.approx(hit.score, abs=1e-3)
    assert [match.document_span for match in matches] == [tuple(spans[place]) for place in best]


def test_explain_has_no_spans_where_the_tokens_are_not_the_texts(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder, keep_tokens=0.5) as index:
        index.add_embeddings(encoder.encode_documents([OWLS]), ids=["other"], texts=["much less text"])
        assert all(match.document_span is None for match in index.explain("owls", "other"))


def test_pooling_takes_what_pruning_left(encoder: BundledEncoder) -> None:
    pytest.importorskip("scipy", reason="SciPy isn't installed (muvera-core[pooling])")
    reduction = TokenReduction(keep_tokens=0.75, pool_factor=2)
    expected = reduction.apply(encoder.encode_documents([OWLS]))
    n_tokens = len(encoder.document_spans(OWLS))
    assert len(expected.vectors) == reduction.length(n_tokens) < 0.45 * n_tokens
    with MuveraIndex.create(None, encoder, pool_factor=2, keep_tokens=0.75) as index:
        index.add([OWLS], ids=["owls"])
        assert index.n_tokens == len(expected.vectors)
        matches = index.explain(QUESTION, "owls")
    matched = {match.query_token: match.document_token for match in matches}
    assert {"mouse": "mouse", "night": "night"}.items() <= matched.items()

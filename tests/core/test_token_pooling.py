"""Pooling a document's tokens, and what an index with a pool factor does with them."""

from __future__ import annotations

import itertools
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera_core import MuveraIndex, TokenEmbeddings, check_index, maxsim, repair_index
from muvera_core.cli import main
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.encoders.token_pooling import pool_tokens, pooled_length
from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.storage.manifest import Manifest, _checksum
from muvera_core.token_embeddings import FloatArray, unit_length

pytest.importorskip("scipy", reason="SciPy isn't installed (muvera-core[pooling])")

D = 8
ENCODER = PrecomputedEmbeddings(D, "random")
OWLS = "Owls hunt at night and sleep by day. They hear a mouse under the snow and fly without a sound."
ANTS = "Ants live in colonies, carry leaves that are heavier than they are, and farm mushrooms on them."


def unit_tokens(seed: int, n_tokens: int, dimension: int = D) -> FloatArray:
    vectors = np.random.default_rng(seed).standard_normal((n_tokens, dimension)).astype(np.float32)
    return unit_length(vectors)


def pooled(tokens: npt.ArrayLike, pool_factor: int) -> FloatArray:
    return pool_tokens(TokenEmbeddings.from_list([tokens]), pool_factor)[0]


def wards_clusters(points: FloatArray, n_clusters: int) -> list[list[int]]:
    """Ward's method as it is defined: join the two clusters whose joint spread grows least."""
    clusters = [[i] for i in range(len(points))]

    def growth(pair: tuple[list[int], list[int]]) -> float:
        a, b = pair
        apart = points[a].mean(axis=0) - points[b].mean(axis=0)
        return float(len(a) * len(b) / (len(a) + len(b)) * apart @ apart)

    while len(clusters) > n_clusters:
        a, b = min(itertools.combinations(clusters, 2), key=growth)
        clusters = [c for c in clusters if c not in (a, b)] + [sorted(a + b)]
    return sorted(clusters)


# Pooling


@pytest.mark.parametrize("pool_factor", [2, 3, 4])
def test_behind_the_first_token_the_clusters_are_wards(pool_factor: int) -> None:
    tokens = unit_tokens(0, 40)
    clusters = wards_clusters(tokens[1:], 39 // pool_factor)
    means = np.stack([tokens[1:][cluster].mean(axis=0) for cluster in clusters])
    expected = np.vstack([tokens[:1], means / np.linalg.norm(means, axis=1, keepdims=True)])
    np.testing.assert_allclose(pooled(tokens, pool_factor), expected, atol=1e-5)


def test_alike_tokens_are_merged_in_the_order_in_which_they_first_occur() -> None:
    x, y, z, also_x = np.eye(4)[0], np.eye(4)[1], np.eye(4)[2], np.array([0.8, 0.6, 0, 0])
    both = (x + also_x) / np.linalg.norm(x + also_x)
    found = pooled([x, z, x, z, y, also_x, y], 2)
    np.testing.assert_allclose(found, np.stack([x, z, both, y]), atol=1e-6)


def test_tokens_of_other_lengths_are_compared_by_direction_and_keep_their_mean_length() -> None:
    x, y = np.eye(4)[0], np.eye(4)[1]
    found = pooled([x, 1 * x, 2 * y, 9 * x, 8 * y], 2)
    np.testing.assert_allclose(found, np.stack([x, 5 * x, 5 * y]), atol=1e-6)


def test_tokens_as_long_as_can_be_stored_are_pooled() -> None:
    edge = 2.0**40
    np.testing.assert_allclose(pooled([[edge, 0], [edge, edge], [edge, -edge]], 2), [[edge, 0], [edge, 0]])


def test_factor_1_changes_nothing() -> None:
    embeddings = TokenEmbeddings.from_list([unit_tokens(0, 9)])
    assert pool_tokens(embeddings, 1) is embeddings


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 7, 1024, 1025, 1026, 2050])
@pytest.mark.parametrize("pool_factor", [1, 2, 5, 16])
def test_the_number_of_vectors_is_known_beforehand(n_tokens: int, pool_factor: int) -> None:
    n = len(pooled(unit_tokens(0, n_tokens), pool_factor))
    assert n == pooled_length(n_tokens, pool_factor)
    assert 1 <= n <= 1 + max(1, n_tokens / pool_factor)


@pytest.mark.parametrize("token", [np.zeros(D), np.eye(D)[3], np.full(D, 2.0**40)], ids=["zero", "unit", "huge"])
def test_equal_tokens_stay_what_they_are(token: FloatArray) -> None:
    np.testing.assert_allclose(pooled(np.tile(token, (9, 1)), 2), np.tile(token, (5, 1)), rtol=1e-6)


def test_a_zero_vector_among_others_does_no_harm() -> None:
    tokens = unit_tokens(0, 20)
    tokens[[4, 7, 11]] = 0
    assert np.isfinite(pooled(tokens, 3)).all()


def test_a_document_does_not_depend_on_its_batch() -> None:
    documents = [unit_tokens(seed, n) for seed, n in enumerate((1, 30, 2, 77))]
    batch = pool_tokens(TokenEmbeddings.from_list(documents), 2)
    assert batch.lengths.tolist() == [1, 15, 2, 39]
    for document, vectors in zip(documents, batch, strict=True):
        assert np.array_equal(pooled(document, 2), vectors)
    assert len(pool_tokens(TokenEmbeddings.from_list([], D), 2)) == 0


def test_a_long_document_is_pooled_in_stretches_and_takes_little_memory() -> None:
    tokens = unit_tokens(0, 16_384)
    tracemalloc.start()
    try:
        found = pooled(tokens, 2)
        assert tracemalloc.get_traced_memory()[1] < 50e6  # half a distance matrix would take a gigabyte
    finally:
        tracemalloc.stop()
    assert len(found) == 8192


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 16))
def test_vectors_of_unit_length_stay_so(seed: int, n_tokens: int, pool_factor: int) -> None:
    found = pooled(unit_tokens(seed, n_tokens), pool_factor)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_half_of_the_tokens_find_nearly_what_all_find(passages: Any, exact_top_10: np.ndarray) -> None:
    halved = pool_tokens(passages.documents, 2)
    found = [np.argsort(-maxsim(tokens, halved))[:10] for tokens in passages.asked]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(found, exact_top_10.tolist(), strict=True)]
    assert np.mean(shared) > 0.85


@pytest.mark.parametrize("factor", [0, 17, -2, True, 2.0, "2", None])
def test_other_factors_are_refused(factor: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="pool_factor"):
        pool_tokens(TokenEmbeddings.from_list([unit_tokens(0, 5)]), factor)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="pool_factor"):
        MuveraIndex.create(tmp_path / "index", ENCODER, pool_factor=factor)  # type: ignore[arg-type]
    assert not (tmp_path / "index").exists()


# An index of pooled tokens


def test_a_factor_that_numpy_counted_is_kept_as_a_number(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path, ENCODER, pool_factor=np.int64(2)).close()  # type: ignore[arg-type]
    assert Manifest.read(tmp_path).pool_factor == 2


def test_an_index_pools_what_it_is_given_and_remembers_to(tmp_path: Path, encoder: BundledEncoder) -> None:
    expected = pool_tokens(encoder.encode_documents([OWLS, ANTS]), 2)
    with MuveraIndex.create(tmp_path / "index", encoder, pool_factor=2) as index:
        index.add([OWLS], ids=["owls"])
        assert index.n_tokens == len(expected[0]) < 20
    with MuveraIndex.open(tmp_path / "index", encoder) as index:
        assert index.pool_factor == 2
        index.add_embeddings(encoder.encode_documents([ANTS]), ids=["ants"])
        assert index.n_tokens == len(expected.vectors)
        scores = maxsim(encoder.encode_queries(["who hunts mice"])[0], expected)
        assert {hit.id: hit.score for hit in index.search("who hunts mice")} == {
            "owls": pytest.approx(scores[0], abs=0.05),
            "ants": pytest.approx(scores[1], abs=0.05),
        }


def test_a_copy_has_the_same_tokens_and_goes_on_pooling(tmp_path: Path) -> None:
    documents, query = [unit_tokens(seed, 31) for seed in range(20)], unit_tokens(99, 5)
    with MuveraIndex.create(None, ENCODER, pool_factor=3) as index:
        index.add_embeddings(documents)
        index.copy_to(tmp_path / "copy")
        with MuveraIndex.open(tmp_path / "copy", ENCODER) as copy:
            assert copy.search_embeddings(query, k=20) == index.search_embeddings(query, k=20)
            copy.add_embeddings(documents[:1])
            assert copy.n_tokens == 21 * pooled_length(31, 3)


def test_lost_tokens_are_pooled_again(tmp_path: Path, encoder: BundledEncoder) -> None:
    with MuveraIndex.create(tmp_path / "index", encoder, pool_factor=2) as index:
        index.add([OWLS, ANTS], ids=["owls", "ants"])
        before, n_tokens = index.search("who hunts mice"), index.n_tokens
    (file,) = (tmp_path / "index").glob("tokens-*.bin")
    file.write_bytes(b"")
    assert set(repair_index(tmp_path / "index", encoder).reencoded) == {"owls", "ants"}
    assert check_index(tmp_path / "index").ok
    with MuveraIndex.open(tmp_path / "index", encoder) as index:
        assert index.n_tokens == n_tokens
        assert index.search("who hunts mice") == before


@pytest.mark.parametrize("pool_factor", [2, 4])
def test_explain_names_the_nearest_of_the_words_that_were_merged(encoder: BundledEncoder, pool_factor: int) -> None:
    question = "which bird hunts a mouse at night"
    with MuveraIndex.create(None, encoder, pool_factor=pool_factor) as index:
        index.add([OWLS], ids=["owls"])
        (hit,) = index.search(question)
        matches = index.explain(question, "owls")
    assert sum(match.similarity for match in matches) == pytest.approx(hit.score, abs=1e-3)
    for match in matches:
        assert match.document_span is not None
        assert OWLS[slice(*match.document_span)] == match.document_token
    matched = {match.query_token: match.document_token for match in matches}
    assert {"mouse": "mouse", "night": "night"}.items() <= matched.items()


def test_explain_has_no_spans_where_the_tokens_are_not_the_texts(encoder: BundledEncoder) -> None:
    with MuveraIndex.create(None, encoder, pool_factor=2) as index:
        index.add_embeddings(encoder.encode_documents([OWLS] * 2), ids=["none", "other"])
        index.add_embeddings(encoder.encode_documents([OWLS]), ids=["other"], texts=["much less text"])
        for id in ("none", "other"):
            assert all(match.document_span is None for match in index.explain("owls", id))


def test_a_manifest_without_a_factor_is_one_of_an_index_that_pools_nothing(tmp_path: Path) -> None:
    MuveraIndex.create(tmp_path, ENCODER).close()
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    assert content.pop("pool_factor") == 1
    path.write_text(json.dumps({**content, "checksum": _checksum(content)}))
    assert Manifest.read(tmp_path).pool_factor == 1


def test_without_scipy_one_is_told_what_to_install_and_can_still_search(
    tmp_path: Path, encoder: BundledEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MuveraIndex.create(tmp_path / "index", encoder, pool_factor=2) as index:
        index.add([OWLS], ids=["owls"])
        before = index.search("owls"), index.explain("owls", "owls")
    for name in ("scipy", "scipy.cluster", "scipy.cluster.hierarchy"):
        monkeypatch.setitem(sys.modules, name, None)
    install = r"pip install 'muvera-core\[pooling\]'"
    with pytest.raises(MissingExtraError, match=install):
        MuveraIndex.create(tmp_path / "new", encoder, pool_factor=2)
    assert not (tmp_path / "new").exists()
    with MuveraIndex.create(None, encoder) as plain:
        plain.add([OWLS])
    with MuveraIndex.open(tmp_path / "index", encoder) as index:
        with pytest.raises(MissingExtraError, match=install):
            index.add([ANTS])
        with pytest.raises(MissingExtraError, match=install):
            index.add_embeddings(encoder.encode_documents([ANTS]))
        index.copy_to(tmp_path / "copy")
        assert (index.search("owls"), index.explain("owls", "owls")) == before
    (file,) = (tmp_path / "index").glob("tokens-*.bin")
    tokens = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(MissingExtraError, match=install):
        repair_index(tmp_path / "index", encoder)
    file.write_bytes(tokens)
    assert check_index(tmp_path / "index").ok
    assert check_index(tmp_path / "copy").ok


# The command line


def test_the_command_line_takes_a_factor_for_a_new_index_and_shows_it(tmp_path: Path) -> None:
    def muvera(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        return result.exit_code, result.output

    (tmp_path / "owls.txt").write_text(OWLS)
    index, file = tmp_path / "index", tmp_path / "owls.txt"
    assert muvera("index", index, file, "--pool-factor", 17)[0] == 2
    assert muvera("index", index, file, "--pool-factor", 2)[0] == 0
    assert "tokens in int8, pooled by 2" in muvera("info", index)[1]
    assert json.loads(muvera("info", index, "--json")[1])["pool_factor"] == 2
    for same in ([], ["--pool-factor", 2]):
        assert "1 unchanged" in muvera("index", index, file, *same)[1]
    status, message = muvera("index", index, file, "--pool-factor", 3)
    assert status == 1
    assert "was made with --pool-factor 2, which cannot be changed" in message
    assert muvera("index", tmp_path / "plain", file)[0] == 0
    assert "pooled" not in muvera("info", tmp_path / "plain")[1]

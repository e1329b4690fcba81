"""What every encoder of text must do. The tests of an encoder subclass ``EncoderChecks``."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from itertools import pairwise
from multiprocessing.connection import Connection

import numpy as np
import pytest

from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.encoders import describe_encoder
from muvera_core.errors import InvalidInputError, MuveraError, TruncatedTextWarning

TEXTS = [
    "An owl hunts at night.",
    "",
    "... !?",
    "naïve café — a hyphen-ated word",
    "cafe\u0301 noir, a\u200bb",
    "so 😀 happy",
    "the [SEP], [CLS], [MASK], </s> and <pad> markers",
    "Ants live in colonies. " * 3,
]
OTHER_SCRIPTS = ["東京の天気", "สุนัขวิ่งเล่น", "שלום עולם", "Добрый день"]
_FORK_SECONDS = 60


class EncoderChecks:
    """Subclasses define the fixture ``encoder``, and ``limited``: the same with ``max_document_tokens=40``.

    Attributes:
        atol: how far the vectors of one text may lie apart if it is encoded with other texts, or again.
        copies: whether the encoder can be pickled and copied. If not, it must raise a MuveraError.
        finds_words: whether spans say which characters a vector stands for.
    """

    atol = 1e-5
    copies = True
    finds_words = True

    def test_it_is_a_token_encoder(self, encoder: TokenEncoder) -> None:
        assert isinstance(encoder, TokenEncoder)
        assert encoder.dimension >= 1
        assert encoder.fingerprint
        described = describe_encoder(encoder)
        assert described["name"] == type(encoder).__qualname__
        assert described["settings"]
        json.dumps(described, allow_nan=False)

    @pytest.mark.parametrize("kind", ["documents", "queries"])
    def test_vectors_have_unit_length(self, encoder: TokenEncoder, kind: str) -> None:
        embeddings = getattr(encoder, f"encode_{kind}")(TEXTS)
        assert len(embeddings) == len(TEXTS)
        assert embeddings.vectors.dtype == np.float32
        assert embeddings.dimension == encoder.dimension
        np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, atol=1e-3)

    @pytest.mark.parametrize("kind", ["documents", "queries"])
    def test_no_texts_give_no_vectors(self, encoder: TokenEncoder, kind: str) -> None:
        embeddings = getattr(encoder, f"encode_{kind}")([])
        assert (len(embeddings), embeddings.dimension) == (0, encoder.dimension)

    @pytest.mark.parametrize("kind", ["documents", "queries"])
    def test_a_text_is_encoded_alike_in_any_company(self, encoder: TokenEncoder, kind: str) -> None:
        encode = getattr(encoder, f"encode_{kind}")
        together = encode(TEXTS)
        backwards = encode(TEXTS[::-1])
        for i, text in enumerate(TEXTS):
            alone = encode([text])[0]
            np.testing.assert_allclose(together[i], alone, atol=self.atol)
            np.testing.assert_allclose(backwards[len(TEXTS) - 1 - i], alone, atol=self.atol)

    @pytest.mark.parametrize("text", TEXTS)
    def test_each_vector_has_a_span(self, encoder: TokenEncoder, text: str) -> None:
        for spans, embeddings in (
            (encoder.document_spans(text), encoder.encode_documents([text])),
            (encoder.query_spans(text), encoder.encode_queries([text])),
        ):
            assert spans.dtype == np.int64
            assert spans.shape == (len(embeddings.vectors), 2)
            assert (spans >= 0).all()
            assert (spans[:, 0] <= spans[:, 1]).all()
            assert (spans <= len(text)).all()

    def test_spans_point_at_the_words(self, encoder: TokenEncoder) -> None:
        text = "naïve 🦉 owls live in trees"
        for spans in (encoder.document_spans(text), encoder.query_spans(text)):
            covered = {text[start:end].strip() for start, end in spans if start < end}
            if self.finds_words:
                characters = {character for start, end in spans for character in text[start:end]}
                assert characters >= set("owlslivetrees")
                assert all(word in text for word in covered)
            else:
                assert covered == set()

    def test_a_long_document_is_encoded_whole_and_once(self, encoder: TokenEncoder) -> None:
        text = " ".join(f"owl number {i} sat in a tree" for i in range(300))
        spans = [(start, end) for start, end in encoder.document_spans(text).tolist() if start < end]
        assert len(encoder.encode_documents([text]).vectors) >= 300 * 5
        if self.finds_words:
            assert all(left[1] <= right[0] for left, right in pairwise(spans))
            assert all(not gap.strip() for gap in _gaps(text, spans))

    def test_what_is_left_out_is_reported(self, limited: TokenEncoder) -> None:
        with pytest.warns(TruncatedTextWarning, match="text 2 of this call") as caught:
            embeddings = limited.encode_documents(["short", "an owl sat in a tree " * 40])
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert len(embeddings[1]) <= 40 + 8
        text = "an owl sat in a tree " * 40
        assert len(limited.document_spans(text)) == len(embeddings[1])

    def test_a_long_question_is_encoded_or_reported(self, encoder: TokenEncoder) -> None:
        question = "which owl sat in which tree " * 400
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tokens = encoder.encode_queries([question])[0]
        is_reported = any(issubclass(warning.category, TruncatedTextWarning) for warning in caught)
        assert is_reported or len(tokens) >= 6 * 400
        assert len(encoder.query_spans(question)) == len(tokens)

    @pytest.mark.filterwarnings("ignore::muvera_core.errors.UnknownTextWarning")
    @pytest.mark.parametrize("text", OTHER_SCRIPTS)
    def test_other_scripts_are_encoded(self, encoder: TokenEncoder, text: str) -> None:
        tokens = encoder.encode_documents([text])[0]
        assert len(tokens) == len(encoder.document_spans(text)) >= 1
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-3)

    @pytest.mark.parametrize("method", ["encode_documents", "encode_queries"])
    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            pytest.param("one text", "texts must be a list, got str", id="a bare str"),
            pytest.param(["fine", None], r"texts\[1\] must be a string, got NoneType", id="None"),
            pytest.param([b"bytes"], r"texts\[0\] must be a string, got bytes", id="bytes"),
            pytest.param(["ab\ud800c"], r"texts\[0\] holds half of a surrogate pair", id="lone surrogate"),
        ],
    )
    def test_what_is_not_text_is_refused(
        self, encoder: TokenEncoder, method: str, texts: list[str], message: str
    ) -> None:
        with pytest.raises(InvalidInputError, match=message):
            getattr(encoder, method)(texts)

    def test_threads_share_an_encoder(self, encoder: TokenEncoder) -> None:
        texts = [f"{text} {i}" for i in range(4) for text in TEXTS]
        expected = [encoder.encode_queries([text])[0] for text in texts]
        with ThreadPoolExecutor(8) as pool:
            encoded = list(pool.map(lambda text: encoder.encode_queries([text])[0], texts))
        for ours, theirs in zip(encoded, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=self.atol)

    @pytest.mark.parametrize("copied", [deepcopy, lambda made: pickle.loads(pickle.dumps(made))])  # noqa: S301
    def test_a_copy_encodes_alike(self, encoder: TokenEncoder, copied: object) -> None:
        assert callable(copied)
        if not self.copies:
            with pytest.raises(MuveraError):
                copied(encoder)
            return
        again = copied(encoder)
        assert type(again) is type(encoder)
        assert again.fingerprint == encoder.fingerprint
        expected = encoder.encode_documents(TEXTS).vectors
        np.testing.assert_allclose(again.encode_documents(TEXTS).vectors, expected, atol=self.atol)

    @pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
    def test_a_forked_child_encodes_or_says_why_not(self, encoder: TokenEncoder) -> None:
        expected = encoder.encode_queries(TEXTS[:1]).vectors
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        child = context.Process(target=_encode, args=(encoder, there))
        with warnings.catch_warnings():
            # Newer Pythons warn where there are threads, and this test is about whether they do harm.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        try:
            assert here.poll(_FORK_SECONDS), "the forked child hangs"
            told = here.recv()
        finally:
            child.kill()
            child.join()
        if isinstance(told, str):
            assert told.startswith("MuveraError: "), told
        else:
            np.testing.assert_allclose(told, expected, atol=self.atol)

    def test_an_index_uses_it(self, encoder: TokenEncoder) -> None:
        texts = ["An owl hunts at night.", "Ants live in colonies.", "Rye bread keeps long."]
        with MuveraIndex.create(None, encoder) as index:
            index.add(texts, ids=["owl", "ant", "rye"])
            assert {hit.id for hit in index.search("who hunts at night?", k=3)} == {"owl", "ant", "rye"}
            assert index.search(texts[1], k=1)[0].id == "ant"
            matches = index.explain("which bird hunts?", "owl")
        assert len(matches) == len(encoder.query_spans("which bird hunts?"))
        if self.finds_words:
            assert {match.query_token.strip() for match in matches} & {"bird", "b", "bi", "bir", "hunts", "h"}


def _gaps(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """The parts of a text that no span covers."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _encode(encoder: TokenEncoder, pipe: Connection) -> None:
    try:
        pipe.send(encoder.encode_queries(TEXTS[:1]).vectors)
    except MuveraError as error:
        pipe.send(f"MuveraError: {error}")
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")

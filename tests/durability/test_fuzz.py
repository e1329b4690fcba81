"""Whatever is handed to a public function, it works as documented or raises a MuveraError, and nothing is half done."""

from __future__ import annotations

import enum
import gzip
import math
import os
import re
import signal
import types
import warnings
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muvera_core import (
    FDEConfig,
    FixedDimensionalEncoder,
    MuveraIndex,
    StageClock,
    TextEncoder,
    TokenEmbeddings,
    maxsim,
    score_texts,
)
from muvera_core.encoders import BundledEncoder, PrecomputedEmbeddings
from muvera_core.errors import (
    EncoderError,
    IndexFolderError,
    InvalidInputError,
    MuveraError,
    SkippedTextWarning,
    TruncatedTextWarning,
    UnknownTextWarning,
)
from muvera_core.evaluation.collections import read_beir
from muvera_core.filters.language import compile_filter
from muvera_core.metadata import normalizing
from muvera_core.metadata.normalizing import MAX_METADATA_DEPTH
from muvera_core.set_encoders.fde_config import MAX_OUTPUT_DIMENSION, MAX_WORK_PER_TOKEN
from muvera_core.set_encoders.fde_matrices import FDEMatrices
from muvera_core.token_embeddings import MAX_MAGNITUDE
from muvera_core.validation import has_visible_text, repaired

D = 4
ENCODER = PrecomputedEmbeddings(D, "fuzz")
FDE = FDEConfig(dimension=D, num_repetitions=2, num_simhash_projections=2, projection_dimension=None)
TOKENS = np.eye(2, D, dtype=np.float32)
REFUSED = object()
MAX_VALUES = 1 << 15
# Reproducible: the same examples in every run.
fuzz = settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """End a test that would never end. Nothing here takes more than a few seconds."""

    def give_up(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path that is taken for a relative one lead nowhere near the sources."""
    monkeypatch.chdir(tmp_path_factory.mktemp("working folder"))


@pytest.fixture
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the limit on values sooner: counting to a million takes a second."""
    monkeypatch.setattr(normalizing, "MAX_METADATA_VALUES", MAX_VALUES)


@pytest.fixture(params=["memory", "folder"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MuveraIndex]:
    with create(None if request.param == "memory" else tmp_path / "index") as made:
        yield made


@pytest.fixture(scope="module")
def short() -> BundledEncoder:
    return BundledEncoder(max_document_tokens=300, max_query_tokens=300)


def create(path: Path | None = None, **options: Any) -> MuveraIndex:
    made = MuveraIndex.create(path, ENCODER, FDE, **options)
    made.add_embeddings([TOKENS, -TOKENS], ids=["a", "b"], texts=["x", "y"], metadatas=[{"n": 1}, None])
    return made


@contextmanager
def case(name: str) -> Iterator[None]:
    """Name the case that failed, where a test goes through many."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"with {name}")
        raise


def attempt(call: Callable[[], Any], *names: str) -> Any:
    """What a call returns, or REFUSED where it raised a MuveraError that says what was wrong with which argument."""
    try:
        return call()
    except MuveraError as error:
        message = str(error)
        assert len(message) < 25_000, message[:100]  # a path of 10,000 characters, twice
        assert any(re.search(name, message) for name in names) or not names, message
        return REFUSED


def refuse_junk(call: Callable[[Any], Any], *names: str, but: Collection[str] = ()) -> None:
    """See that a call refuses all junk and says which argument it was. That named in ``but`` may be accepted."""
    for name, make in JUNK.items():
        with case(f"junk {name!r}"):
            assert attempt(partial(call, make()), *names) is REFUSED or name in but


def content(index: MuveraIndex) -> Any:
    hits = index.search_embeddings(TOKENS, k=100, exact=True)
    return len(index), index.find(), [(hit.id, hit.score) for hit in hits]


def unchanged(index: MuveraIndex, before: Any) -> None:
    assert content(index) == before
    index.add_embeddings([TOKENS], ids=["still usable"])
    assert index.delete("still usable") == 1
    assert content(index) == before


class Raising(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "SHOUTED"


class Colour(str, enum.Enum):  # noqa: UP042 - what people wrote before StrEnum
    RED = "red"


class Level(enum.IntEnum):
    LOW = 3


class BadArray:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("on another device")


class Subclass(np.ndarray[Any, Any]):
    pass


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def ring(kind: type) -> Any:
    value: Any = kind()
    if kind is list:
        value += [value, value]
    else:
        value["a"] = value["b"] = value
    return value


def nested(depth: int, kind: type = dict) -> Any:
    """``depth`` lists or dictionaries, one in the other."""
    value: Any = kind()
    for _ in range(depth - 1):
        value = {"a": value} if kind is dict else [value]
    return value


def bomb(levels: int) -> Any:
    """A list of so many elements, all but a few of them the same objects, that nobody can write them down."""
    value: Any = [1]
    for _ in range(levels):
        value = [value, value]
    return value


# Made anew for each use: a generator is empty after the first.
JUNK: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "number": lambda: 3,
    "float": lambda: 2.5,
    "nan": lambda: math.nan,
    "bool": lambda: True,
    "bytes": lambda: b"abc",
    "text": lambda: "abc",
    "empty text": lambda: "",
    "surrogate": lambda: "a\ud800b",
    "object": object,
    "unprintable": Unprintable,
    "class": lambda: dict,
    "list": lambda: [1, [2]],
    "nested": lambda: nested(5000, list),
    "ring": lambda: ring(list),
    "dict": lambda: {"a": 1},
    "raising": Raising,
    "set": lambda: {1},
    "generator": lambda: (i for i in range(3)),
    "array": lambda: np.arange(3),
    "complex": lambda: 1j,
    "huge": lambda: -(10**5000),
    "timedelta": lambda: np.timedelta64(5, "s"),
}
TEXT = ("text", "empty text", "surrogate")


# Arrays

ARRAYS: dict[str, Callable[[], Any]] = {
    "0-d": lambda: np.float32(1),
    "1-d": lambda: np.ones(D),
    "3-d": lambda: np.ones((1, 1, D)),
    "32-d": lambda: np.ones((1,) * 32),
    "empty": lambda: np.empty((0, D)),
    "no width": lambda: np.empty((2, 0)),
    "empty list": list,
    "list of empty lists": lambda: [[]],
    "ragged": lambda: [[1.0, 2.0, 3.0, 4.0], [1.0]],
    "ragged deep": lambda: [[1.0, [2.0], 3.0, 4.0]],
    "wide": lambda: np.ones((1, D + 1)),
    "very wide": lambda: np.ones((1, 1 << 20)),
    "object": lambda: np.array([[1, 2, 3, None]], dtype=object),
    "object of numbers": lambda: np.array([[1, 2, 3, 4]], dtype=object),
    "strings": lambda: [["1", "2", "3", "4"]],
    "bytes": lambda: b"abcd",
    "complex": lambda: np.ones((1, D), dtype=complex),
    "bool": lambda: np.ones((1, D), dtype=bool),
    "datetime": lambda: np.zeros((1, D), dtype="M8[s]"),
    "timedelta": lambda: np.zeros((1, D), dtype="m8[s]"),
    "structured": lambda: np.zeros((1, D), dtype=[("x", "f4")]),
    "nan": lambda: np.full((1, D), np.nan),
    "infinity": lambda: [[1.0, 2.0, -np.inf, 0.0]],
    "overflow": lambda: np.full((1, D), 1e300),
    "overflow of scores": lambda: np.full((1, D), 3e38),
    "beyond the limit": lambda: np.full((1, D), np.nextafter(np.float32(MAX_MAGNITUDE), np.float32(np.inf))),
    "huge whole numbers": lambda: [[2**70, 0, 0, 0]],
    "at the limit": lambda: np.full((3, D), -MAX_MAGNITUDE),
    "tiny": lambda: np.full((1, D), 1e-45),
    "underflow": lambda: np.full((1, D), 1e-300),
    "zeros": lambda: np.zeros((2, D)),
    "negative zeros": lambda: -np.zeros((2, D)),
    "masked": lambda: np.ma.masked_array(np.ones((1, D)), mask=[[True, False, False, False]]),
    "raises": BadArray,
    "none": lambda: None,
    "dict": lambda: {"a": [1, 2, 3, 4]},
    "ring": lambda: ring(list),
    "half": lambda: np.array([[1, 2, 3, 4]], dtype=np.float16),
    "double": lambda: np.array([[0.1, 0.2, 0.3, 0.4]]),
    "long double": lambda: np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.longdouble),
    "int8": lambda: np.array([[-128, 2, 3, 127]], dtype=np.int8),
    "uint64": lambda: np.array([[2**63, 2**39, 3, 4]], dtype=np.uint64),
    "big-endian": lambda: np.array([[1, 2, 3, 4]], dtype=">f4"),
    "lists": lambda: [[1, 2, 3, 4], [5, 6, 7, 8.5]],
    "tuples": lambda: ((1, 2, 3, 4), (5, 6, 7, 8)),
    "fortran": lambda: np.asfortranarray(np.arange(12.0).reshape(3, D)),
    "every other": lambda: np.arange(48.0).reshape(6, 8)[::2, ::2],
    "backwards": lambda: np.arange(12.0, dtype=np.float32).reshape(3, D)[::-1, ::-1],
    "broadcast": lambda: np.broadcast_to(np.float32(0.5), (3, D)),
    "read-only": lambda: read_only(np.arange(8, dtype=np.float32).reshape(2, D)),
    "unaligned": lambda: np.frombuffer(b"\0" + np.arange(4, dtype="<f4").tobytes(), dtype=np.uint8)[1:].view("<f4")[
        None
    ],
    "subclass": lambda: np.arange(4.0).reshape(1, D).view(Subclass),
    "matrix": lambda: np.asmatrix([[1, 2, 3, 4]]) if hasattr(np, "asmatrix") else np.ones((1, D)),
    "memoryview": lambda: np.arange(4, dtype=np.float32).reshape(1, D).data,
}
matrix = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")


@matrix
def test_an_array_is_stored_as_it_is_or_refused(index: MuveraIndex) -> None:
    before = content(index)
    for name, make in ARRAYS.items():
        with case(name):
            added = attempt(partial(add_new, index, make), "item 0", "-d token vectors")
            if added is not REFUSED:
                is_stored(index, make)
                assert index.delete("new") == 1
            assert content(index) == before
    unchanged(index, before)


def add_new(index: MuveraIndex, make: Callable[[], Any]) -> None:
    index.add_embeddings([make()], ids=["new"])


def is_stored(index: MuveraIndex, make: Callable[[], Any]) -> None:
    with np.errstate(all="ignore"):
        expected = np.asarray(make(), dtype=np.float32)
    assert index.n_tokens == 4 + len(expected)
    rounding = float(np.abs(expected).max()) / 127 + 1e-40
    for axis in range(D):
        question = np.eye(1, D, axis, dtype=np.float32)
        (hit,) = (hit for hit in index.search_embeddings(question, exact=True, k=10) if hit.id == "new")
        assert math.isclose(hit.score, float(expected[:, axis].max()), rel_tol=1e-3, abs_tol=rounding)


@matrix
@pytest.mark.parametrize("exact", [True, False])
def test_a_question_is_answered_or_refused(exact: bool) -> None:
    with create() as index:
        for name, make in ARRAYS.items():
            with case(name):
                ask(index, make, exact)


def ask(index: MuveraIndex, make: Callable[[], Any], exact: bool) -> None:
    hits = attempt(lambda: index.search_embeddings(make(), exact=exact), "item 0", "query", "one query")
    if hits is REFUSED:
        return
    with np.errstate(all="ignore"):
        question = np.asarray(make(), dtype=np.float64)
    expected = {"a": (question @ TOKENS.T).max(axis=1).sum(), "b": (question @ -TOKENS.T).max(axis=1).sum()}
    # Kernels round a query's numbers to 16 bits.
    assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-4, abs=1e-30)
    assert all(0 <= hit.normalized_score <= 1 for hit in hits)


@matrix
def test_token_embeddings_encoders_and_maxsim_take_an_array_or_refuse_it() -> None:
    documents = TokenEmbeddings.from_list([TOKENS, -TOKENS])
    centred = FDEConfig(dimension=D, num_repetitions=2, num_simhash_projections=2, center=True)
    for name, make in ARRAYS.items():
        with case(name):
            made = attempt(partial(TokenEmbeddings, make(), np.array([0, 1])), "vectors", "offsets")
            if made is not REFUSED:
                assert made.vectors.flags.c_contiguous
                assert made.vectors.dtype == np.float32
            attempt(partial(TokenEmbeddings.from_list, make()), "item", "one array per text", "text")
            scores = attempt(partial(maxsim, make(), documents), "query", "item 0")
            if scores is not REFUSED:
                assert np.isfinite(scores).all()
            attempt(partial(FixedDimensionalEncoder, centred, mean=make()), "mean")


@given(
    shape=st.lists(st.integers(0, 6), max_size=4),
    dtype=st.sampled_from(["?", "i1", "u2", ">i4", "u8", "f2", "f4", ">f8", "g", "c8", "O", "U3", "S2", "m8[s]", "V3"]),
    seed=st.integers(0, 100),
    order=st.sampled_from(["C", "F", "backwards", "strided"]),
)
@fuzz
def test_generated_arrays(shape: list[int], dtype: str, seed: int, order: str) -> None:
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        array = (rng.standard_normal([2 * n for n in shape]) * 100).astype(dtype)
        array = array[tuple(slice(None, None, 2) for _ in shape)]
        if order == "backwards":
            array = array[tuple(slice(None, None, -1) for _ in shape)]
        elif order != "strided":
            array = np.array(array, order="C" if order == "C" else "F")
    made = attempt(lambda: TokenEmbeddings.from_list([array]), "item 0")
    fits = array.dtype.kind in "fiu" and array.ndim == 2 and len(array) > 0
    fits = fits and bool((np.abs(array.astype(np.float64)) <= MAX_MAGNITUDE).all())
    assert (made is REFUSED) != fits
    if fits:
        np.testing.assert_array_equal(made.vectors, array.astype(np.float32))


OFFSETS: list[Any] = [
    None,
    3,
    "02",
    [[0, 2]],
    [],
    [0],
    [2],
    [0.0, 2.0],
    [0, None],
    [0, [1], 2],
    [False, True],
    [0, 2**63 - 1, -(2**63), -1, 2],
    np.array([0, 2**64 - 1, 2], dtype=np.uint64),
    np.array([0, 2], dtype="m8[s]"),
    [0, 2**70],
    [0, 0, 2],
    [0, 3, 2],
]


@pytest.mark.parametrize("offsets", OFFSETS, ids=str)
def test_offsets_that_do_not_fit_are_refused(offsets: Any) -> None:
    assert attempt(lambda: TokenEmbeddings(TOKENS, offsets), "offsets", "token vector") is REFUSED


def test_junk_for_a_list_of_arrays_is_refused() -> None:
    with create() as index:
        before = content(index)
        refuse_junk(index.add_embeddings, "item", "array", "text")
        refuse_junk(TokenEmbeddings.from_list, "item", "array")
        refuse_junk(TokenEmbeddings.concatenate, "TokenEmbeddings")
        refuse_junk(lambda value: TokenEmbeddings.from_list([], dimension=value), "dimension", but=("none", "number"))
        encoder = FixedDimensionalEncoder(FDE)
        refuse_junk(encoder.encode_documents, "TokenEmbeddings")
        refuse_junk(encoder.encode_queries, "TokenEmbeddings")
        refuse_junk(lambda value: maxsim(TOKENS, value), "TokenEmbeddings")
        refuse_junk(index.search_embeddings, "item 0")
        unchanged(index, before)


# Texts and ids

TEXTS: dict[str, Any] = {
    "nul": "a\0b",
    "only nul": "\0",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85",
    "long": "word " * 20_000,
    "one long word": "x" * 100_000,
    "combining marks": "\u0301" * 50,
    "right to left": "שלום \u202eعالم\u202c",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "ligatures": "ﬁ ﷺ",
    "private use": "\ue000\U0010ffff",
    "byte order mark": "\ufeff",
    "zero width": "\u200b\u200d",
    "marker": "[CLS] [SEP] [MASK] [PAD]",
    "replacement": "\ufffd",
    "numpy": np.str_("text of numpy"),
    "enumeration": Colour.RED,
    "subclass": Shouting("quiet"),
    "low surrogate": "\udc80",
    "split surrogate": "\ud83d\ude00",
    "spaces": " \t\n\u2003",
    "empty": "",
    "none": None,
    "bytes": b"text",
    "number": 5,
    "list": ["a"],
    "unprintable": Unprintable(),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_text_comes_back_as_it_was_or_is_skipped_or_refused(text: Any, short: BundledEncoder) -> None:
    with MuveraIndex.create(None, short) as index, warnings.catch_warnings():
        for category in (SkippedTextWarning, TruncatedTextWarning, UnknownTextWarning):
            warnings.simplefilter("ignore", category)
        index.add(["An owl hunts at night."], ids=["owl"])
        is_visible = isinstance(text, str) and has_visible_text(repaired(text))
        if attempt(lambda: index.add([text], ids=["new"]), r"texts\[0\]") is REFUSED or not is_visible:
            assert [document.id for document in index.find()] == ["owl"]
        else:
            (document,) = index.get("new")
            assert type(document.text) is str
            assert document.text == repaired(text)
            explained = index.explain("owl", "new")
            best = {hit.id: hit.score for hit in index.search("owl", exact=True)}["new"]
            assert sum(match.similarity for match in explained) == pytest.approx(best, rel=1e-4, abs=1e-3)
        for call in (
            lambda: index.search(text),
            lambda: index.search_batch([text])[0],
            lambda: index.search_diverse(text),
        ):
            hits = attempt(call, "quer")
            found = {document.id for document in index.find()} if is_visible else set()
            assert hits is REFUSED or {hit.id for hit in hits} == found
        attempt(lambda: index.explain(text, "owl"), "query")
        scored = attempt(lambda: score_texts(short, "owl", [text, "owl"]), r"texts\[0\]")
        assert scored is REFUSED or np.isfinite(scored[0]).all()
        attempt(lambda: score_texts(short, text, ["owl"]), "query")
        vectors = TextEncoder(short)
        for encode in (vectors.encode_documents, vectors.encode_queries):
            made = attempt(partial(encode, [text]), r"texts\[0\]")
            assert made is REFUSED or (made.shape == (1, vectors.output_dimension) and np.isfinite(made).all())
        for spans in (short.document_spans, short.query_spans):
            attempt(partial(spans, text), "text")


@given(text=st.text(alphabet=st.characters(), max_size=40))
@settings(fuzz, max_examples=40)
def test_generated_texts(short: BundledEncoder, text: str) -> None:
    with MuveraIndex.create(None, short) as index, warnings.catch_warnings():
        for category in (SkippedTextWarning, UnknownTextWarning):
            warnings.simplefilter("ignore", category)
        index.add([text], ids=["new"])
        found = ["new"] if has_visible_text(repaired(text)) else []
        assert [document.text for document in index.find()] == [repaired(text)] * len(found)
        assert [hit.id for hit in index.search(text)] == found


def test_an_id_names_its_document_or_is_refused(index: MuveraIndex) -> None:
    before = content(index)
    for name, id in TEXTS.items():
        with case(name):
            if attempt(partial(index.add_embeddings, [TOKENS], ids=[id]), r"ids\[0\]") is REFUSED:
                attempt(partial(index.get, [id]), r"ids\[0\]")
                attempt(partial(index.delete, [id]), r"ids\[0\]")
                assert id not in index
            else:
                assert id in index
                assert index.get(id)[0].id == id
                assert type(index.get(id)[0].id) is str
                assert id[:1] + "?" not in index
                assert index.delete(id) == 1
            assert content(index) == before
    unchanged(index, before)


def test_half_a_surrogate_pair_is_the_id_of_nothing(index: MuveraIndex) -> None:
    assert "\ud800" not in index
    assert "a\0" not in index


def test_junk_for_lists_of_texts_and_ids_is_refused(short: BundledEncoder) -> None:
    vectors = TextEncoder(short)
    with create() as index:
        before = content(index)
        for call in (
            index.add,
            index.search_batch,
            partial(score_texts, short, "owl"),
            vectors.encode_documents,
            vectors.encode_queries,
            short.encode_documents,
            short.encode_queries,
        ):
            refuse_junk(call, "texts", "queries")
        for name in ("texts", "ids", "metadatas"):
            with case(name):
                refuse_junk(partial(add_with, index, name), name, but=("none",))
                assert index.delete(filter={"n": {"$exists": False}}, ids=added_ids(index)) == 1
        refuse_junk(index.get, "ids", but=TEXT)
        refuse_junk(index.delete, "ids", but=TEXT)
        refuse_junk(partial(index.explain, "x"), "id", "takes token embeddings")
        for make in JUNK.values():
            assert make() not in index
        unchanged(index, before)


def add_with(index: MuveraIndex, name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}
    index.add_embeddings([TOKENS], **options)


def added_ids(index: MuveraIndex) -> list[str]:
    return [document.id for document in index.find() if document.id not in ("a", "b")]


def test_two_hundred_thousand_ids_with_a_double_are_refused_at_once(index: MuveraIndex) -> None:
    ids = [f"d{i}" for i in range(200_000)]
    before = content(index)
    tokens = TokenEmbeddings(np.ones((200_001, D), np.float32), np.arange(200_002))
    assert attempt(lambda: index.add_embeddings(tokens, ids=[*ids, "d199999"]), "'d199999'") is REFUSED
    unchanged(index, before)


# Numbers and other settings


def test_a_number_that_is_none_is_refused(short: BundledEncoder) -> None:
    with create() as index:
        before = content(index)
        refuse_junk(lambda value: index.search_embeddings(TOKENS, value), "k must", but=("number",))
        refuse_junk(
            lambda value: index.search_embeddings(TOKENS, n_candidates=value), "n_candidates", but=("none", "number")
        )
        refuse_junk(lambda value: index.find(limit=value), "limit", but=("none", "number"))
        refuse_junk(lambda value: index.add([], batch_size=value), "batch_size", but=("number",))
        refuse_junk(lambda value: score_texts(short, "owl", ["owl"], batch_size=value), "batch_size", but=("number",))
        refuse_junk(lambda value: TextEncoder(short, batch_size=value), "batch_size", but=("number",))
        refuse_junk(lambda value: index.search_diverse("owl", fetch_k=value), "fetch_k", "takes token embeddings")
        refuse_junk(
            lambda value: index.search_diverse("owl", relevance_weight=value),
            "relevance_weight",
            "takes token embeddings",
        )
        unchanged(index, before)


@pytest.mark.parametrize("value", [10**30, np.int64(2**62), np.uint8(200), np.int32(1)], ids=repr)
def test_any_positive_whole_number_will_do_for_a_count(value: Any) -> None:
    with create() as index:
        assert len(index.search_embeddings(TOKENS, value)) == min(2, value)
        assert len(index.search_embeddings(TOKENS, n_candidates=value)) == 2
        assert len(index.find(limit=value)) == min(2, value)


SETTINGS = ("dimension", "num_repetitions", "num_simhash_projections", "projection_dimension",
            "final_projection_dimension", "projection", "fill_empty_partitions", "center", "seed")  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_makes_no_sense_is_refused(name: str) -> None:
    for junk, make in JUNK.items():
        with case(junk):
            value = make()
            made = attempt(partial(FDEConfig, **{name: value}), name)
            if made is not REFUSED:
                assert getattr(made, name) is value
                mean = np.zeros(128) if made.center else None
                assert FixedDimensionalEncoder(made, mean=mean).output_dimension > 0


huge = st.integers(-2, 40) | st.integers(0, 2**70) | st.sampled_from([2**20, 2**22, 2**31, 2**63, 10**400])


@given(
    dimension=huge, num_repetitions=huge, num_simhash_projections=huge, projection_dimension=st.none() | huge,
    final_projection_dimension=st.none() | huge, seed=huge,
)  # fmt: skip
@settings(fuzz, max_examples=300)
def test_settings_that_would_allocate_absurdly_are_refused(**values: Any) -> None:
    made = attempt(lambda: FDEConfig(**values))
    if made is not REFUSED:
        assert made.output_dimension <= MAX_OUTPUT_DIMENSION
        assert made.sketched_from <= MAX_OUTPUT_DIMENSION
        columns = made.num_repetitions * (made.num_simhash_projections + (made.projection_dimension or 0))
        assert made.dimension * columns <= MAX_WORK_PER_TOKEN


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"num_repetitions": 2**20, "num_simhash_projections": 0}, "num_repetitions"),
        ({"num_repetitions": 2**60}, "num_repetitions"),
        ({"num_simhash_projections": 2**60}, "num_simhash_projections"),
        ({"num_simhash_projections": 13}, "num_simhash_projections"),
        ({"projection_dimension": 2**20}, "projection_dimension"),
        ({"final_projection_dimension": 2**40}, "final_projection_dimension"),
        ({"dimension": 2**40}, "dimension"),
        ({"dimension": 2**40, "projection_dimension": None, "num_simhash_projections": 0}, "dimension"),
        ({"seed": 10**5000}, "seed"),
    ],
)
def test_a_refusal_of_absurd_settings_says_which(values: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        FDEConfig(**values)


def test_junk_for_objects_is_refused(short: BundledEncoder, tmp_path: Path) -> None:
    with create(tmp_path / "real"):
        pass
    missing = tmp_path / "index"

    def make(path: Path | None, value: Any, *others: Any, **options: Any) -> None:
        MuveraIndex.create(None if value is None else path, value, *others, **options).close()

    # None stands for the bundled encoder and the usual settings.
    refuse_junk(lambda value: make(None, value), "encoder", but=("none",))
    refuse_junk(lambda value: TextEncoder(value), "encoder", but=("none",))
    refuse_junk(lambda value: make(None, short, value), "fde", but=("none",))
    refuse_junk(lambda value: TextEncoder(short, value), "fde", but=("none",))
    refuse_junk(lambda value: FixedDimensionalEncoder(FDE, matrices=value), "matrices", but=("none",))
    refuse_junk(lambda value: score_texts(value, "owl", ["owl"]), "encoder")
    refuse_junk(lambda value: FixedDimensionalEncoder(value), "config")
    refuse_junk(lambda value: FixedDimensionalEncoder(FDE, matrices=FDEMatrices(value)), "simhash")
    refuse_junk(lambda value: make(None, ENCODER, FDE, token_precision=value), "precision")
    refuse_junk(lambda value: make(missing, ENCODER, FDE, token_precision=value), "precision")
    refuse_junk(lambda value: make(None, ENCODER, FDE, pool_factor=value), "pool_factor", but=("number",))
    refuse_junk(lambda value: PrecomputedEmbeddings(D, value), "model", but=("text",))
    refuse_junk(lambda value: PrecomputedEmbeddings(value, "model"), "dimension", but=("number",))
    refuse_junk(lambda value: BundledEncoder(num_threads=value), "num_threads", but=("none", "number"))
    refuse_junk(lambda value: BundledEncoder(max_document_tokens=value), "max_document_tokens", but=("number",))
    refuse_junk(lambda value: BundledEncoder(max_query_tokens=value), "max_query_tokens", but=("number",))
    refuse_junk(lambda value: make(missing, value), "encoder", but=("none",))
    refuse_junk(lambda value: make(missing if value is not None else None, short, value), "fde", but=("none",))
    assert not missing.exists()
    refuse_junk(lambda value: MuveraIndex.open(tmp_path / "real", value), "encoder")
    with create() as index:
        before = content(index)
        refuse_junk(lambda value: index.search_embeddings(TOKENS, clock=value), "clock", but=("none",))
        unchanged(index, before)


def test_a_clock_counts_under_names_only() -> None:
    clock = StageClock()

    def count_under(name: Any) -> None:
        with clock.stage(name):
            pass

    refuse_junk(count_under, "name", but=TEXT)
    assert {*clock.seconds} <= {JUNK[name]() for name in TEXT}


class Misbehaving(PrecomputedEmbeddings):
    """An encoder that returns what it is told to."""

    def __init__(self, result: Any) -> None:
        super().__init__(D, "misbehaving")
        self._result = result

    def encode_documents(self, texts: Any) -> Any:
        return self._result

    encode_queries = encode_documents


@pytest.mark.parametrize("make", JUNK.values(), ids=JUNK.keys())
def test_what_an_encoder_returns_is_looked_at(make: Callable[[], Any]) -> None:
    encoder = Misbehaving(make())
    with MuveraIndex.create(None, encoder, FDE) as index:
        index.add_embeddings([TOKENS], ids=["a"])
        before = content(index)
        vectors = TextEncoder(encoder, FDE)
        calls: list[Callable[[], Any]] = [
            lambda: index.add(["text"]),
            lambda: index.search("text"),
            lambda: index.explain("text", "a"),
            lambda: score_texts(encoder, "text", ["text"]),
            lambda: vectors.encode_documents(["text"]),
            lambda: vectors.encode_queries(["text"]),
        ]
        for call in calls:
            with pytest.raises(EncoderError, match="encoder returned"):
                call()
        unchanged(index, before)


# Metadata

METADATA: dict[str, Any] = {
    "dots": {"a.b": 1, "a": {"b": 1}, "a..b": 2, ".": 3, "..": 4},
    "same field twice": {"a.b": 1, "a": {"b": 1.0}, "c": [1, 1.0, True, "1"]},
    "dollars": {"$a": 1, "$gt": {"$in": [1]}},
    "empty key": {"": 1, "a": {"": {"": 2}}},
    "nul": {"a\0": "b\0c", "a": "b"},
    "megabyte": {"text": "x" * 1_000_000},
    "megabyte key": {"k" * 1_000_000: 1},
    "many keys": {f"k{i}": i for i in range(5000)},
    "long list": {"numbers": list(range(20_000))},
    "deep": {"a": nested(MAX_METADATA_DEPTH - 1)},
    "deep list": {"a": nested(MAX_METADATA_DEPTH - 1, list)},
    "too deep": {"a": nested(MAX_METADATA_DEPTH)},
    "too deep list": {"a": nested(MAX_METADATA_DEPTH, list)},
    "thousands deep": {"a": nested(5000)},
    "hundred thousand deep": {"a": nested(100_000, list)},
    "ring": {"a": ring(dict)},
    "ring of lists": {"a": ring(list)},
    "bomb": {"a": bomb(30)},
    "too many": {"a": [0] * MAX_VALUES},
    "nan": {"a": math.nan},
    "infinity": {"a": [-math.inf]},
    "beyond 64 bits": {"a": 2**63, "b": -(2**63) - 1, "c": 2**64, "d": 2**1023},
    "64 bits": {"a": 2**63 - 1, "b": -(2**63)},
    "beyond floats": {"a": 10**400},
    "beyond printing": {"a": 10**5000},
    "negative zero": {"a": -0.0, "b": 0},
    "smallest": {"a": 5e-324, "b": 1.7976931348623157e308},
    "one or true": {"a": 1, "b": 1.0, "c": True, "d": "1", "e": None, "f": [True, 1, 1.0]},
    "tuple": {"a": (1, 2)},
    "set": {"a": {1, 2}},
    "bytes": {"a": b"x"},
    "complex": {"a": 1j},
    "numpy float64": {"a": np.float64(0.1)},
    "numpy float32": {"a": np.float32(0.1)},
    "numpy int": {"a": np.int64(3)},
    "numpy bool": {"a": np.bool_(True)},
    "numpy text": {"a": np.str_("x"), np.str_("b"): 1},
    "numpy array": {"a": np.arange(3)},
    "enumerations": {"a": Colour.RED, "b": Level.LOW, Colour.RED: 1},
    "ordered": OrderedDict(b=1, a=OrderedDict(c=2)),
    "user dict": UserDict(a=1),
    "proxy": types.MappingProxyType({"a": 1}),
    "proxy inside": {"a": types.MappingProxyType({"a": 1})},
    "deque inside": {"a": deque([1])},
    "raising": Raising(),
    "raising inside": {"a": Raising()},
    "number key": {1: "a"},
    "colliding keys": {1: "a", "1": "b"},
    "true key": {True: 1},
    "none key": {None: 1},
    "surrogate": {"a": "\ud800"},
    "surrogate key": {"\ud800": 1},
    "unprintable": {"a": Unprintable()},
    "list": [("a", 1)],
    "text": "{}",
    "number": 3,
}


UNSTORABLE = {
    "too deep", "too deep list", "thousands deep", "hundred thousand deep", "ring", "ring of lists", "bomb",
    "too many", "infinity", "beyond floats", "beyond printing", "complex", "deque inside", "raising", "raising inside",
    "colliding keys", "unprintable", "list", "text", "number",
}  # fmt: skip

# What comes back of metadata that is not JSON's.
CONVERTED: dict[str, Any] = {
    "nan": {"a": None},
    "tuple": {"a": [1, 2]},
    "set": {"a": [1, 2]},
    "bytes": {"a": "x"},
    "numpy float32": {"a": float(np.float32(0.1))},
    "numpy int": {"a": 3},
    "numpy bool": {"a": True},
    "numpy array": {"a": [0, 1, 2]},
    "proxy inside": {"a": {"a": 1}},
    "number key": {"1": "a"},
    "true key": {"true": 1},
    "none key": {"null": 1},
    "surrogate": {"a": "\ufffd"},
    "surrogate key": {"\ufffd": 1},
}


def plain(value: Any) -> Any:
    """Like ==, but telling 1 from True and 0.0 from -0.0 while int and float of one value stay two things."""
    if isinstance(value, Mapping):
        return {str.__str__(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    kinds: tuple[Any, ...] = (bool, int, float, str)
    kind: Any = next((kind for kind in kinds if isinstance(value, kind)), type(value))
    return kind.__name__, kind.__repr__(value)


@pytest.mark.usefixtures("few_values")
def test_metadata_comes_back_as_json_or_is_refused(index: MuveraIndex) -> None:
    before = content(index)
    for name, metadata in METADATA.items():
        with case(name):
            added = attempt(
                partial(index.add_embeddings, [TOKENS], ids=["new"], metadatas=[metadata]), r"metadatas\[0\]"
            )
            assert (added is REFUSED) == (name in UNSTORABLE)
            if added is not REFUSED:
                for document in (*index.get("new"), index.find()[2], *index.search_embeddings(TOKENS, k=3)):
                    if document.id == "new":
                        assert plain(document.metadata) == plain(CONVERTED.get(name, metadata))
                assert index.delete("new") == 1
            assert content(index) == before
    unchanged(index, before)


keys = st.sampled_from(["a", "b", "a.b", "$a", "", "\0", "é", "A", "b.", "1"]) | st.text(max_size=3)
any_scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
any_value = st.recursive(
    any_scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)
any_metadata = st.dictionaries(keys, any_value, max_size=4)


@given(metadata=any_metadata)
@settings(fuzz, max_examples=150)
def test_generated_metadata_comes_back_equal(metadata: dict[str, Any]) -> None:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([TOKENS], ids=["new"], metadatas=[metadata])
        assert plain(index.get("new")[0].metadata) == plain(metadata)
        assert index.delete("new") == 1
        assert len(index) == 0


# Filters

# Where in a filter a value can stand.
SHAPES: dict[str, Callable[[Any], Any]] = {
    "whole": lambda value: value,
    "equality": lambda value: {"n": value},
    "$gt": lambda value: {"n": {"$gt": value}},
    "$in": lambda value: {"n": {"$in": value}},
    "in $in": lambda value: {"n": {"$in": [value]}},
    "in $all": lambda value: {"n": {"$all": [value]}},
    "in list": lambda value: {"n": [value]},
    "$exists": lambda value: {"n": {"$exists": value}},
    "$like": lambda value: {"n": {"$like": value}},
    "$contains": lambda value: {"n": {"$contains": value}},
    "$not": lambda value: {"n": {"$not": value}},
    "$and": lambda value: {"$and": value},
    "in $or": lambda value: {"$or": [value]},
    "$nor": lambda value: {"$nor": value},
    "top $not": lambda value: {"$not": value},
}


def again(value: Any, wrap: Callable[[Any], Any], times: int) -> Any:
    for _ in range(times):
        value = wrap(value)
    return value


def ring_of(operator: str, wrap: Callable[[Any], Any]) -> dict[str, Any]:
    filter: dict[str, Any] = {}
    filter[operator] = wrap(filter)
    return filter


FILTERS: dict[str, Any] = {
    "empty name": {"": 1},
    "empty operator": {"n": {"$": 1}},
    "number as name": {3: 1},
    "number as nested name": {"n": {3: 1}},
    "empty nested name": {"n": {"": 1}},
    "surrogate name": {"\ud800": 1},
    "surrogate nested name": {"n": {"\ud800": 1}},
    "surrogate in list": {"n": ["\ud800"]},
    "surrogate operator": {"n": {"$\ud800": 1}},
    "surrogate pattern": {"n": {"$ilike": "\ud800"}},
    "number key in list": {"n": [{1: 2}]},
    "nan in list": {"n": [[math.nan]]},
    "deep list": {"n": nested(5000, list)},
    "deep nested fields": {"n": nested(5000)},
    "deep and": again({"n": 1}, lambda f: {"$and": [f]}, 5000),
    "ring": ring(dict),
    "ring of or": ring_of("$or", lambda f: [f, f]),
    "ring of not": ring_of("$not", lambda f: f),
    "bomb": again({"n": 1}, lambda f: {"$or": [f, f]}, 30),
    "bomb of fields": {"n": again({"$gt": 1}, lambda f: {"a": f, "b": f}, 30)},
    "bomb of nots": {"n": again({"$gt": 1}, lambda f: {"$not": f, "$gt": 0}, 40)},
    "bomb in list": {"n": bomb(30)},
    "too many": {"$or": [{"n": i} for i in range(20_000)]},
    "long pattern": {"n": {"$like": "%a" * 100_000}},
    "long unknown operator": {"n": {"$" + "x" * 1_000_000: 1}},
    "long unknown top operator": {"$" + "x" * 1_000_000: 1},
    "long name of a bad field": {"x" * 1_000_000: object()},
    "timedelta": {"n": np.timedelta64(1, "ns")},
    "datetime": {"n": np.datetime64(1, "ns")},
    "raising inside": {"n": {"$in": Raising()}},
    "unhashable operator": {"n": {("$a",): 1}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filter_with_junk_in_it_is_answered_or_refused(shape: str) -> None:
    with create() as index:
        for name, make in JUNK.items():
            with case(name):
                filter_with(index, partial(call_with, SHAPES[shape], make))


@pytest.mark.usefixtures("few_values")
def test_a_strange_filter_is_answered_or_refused() -> None:
    with create() as index:
        for name, filter in FILTERS.items():
            with case(name):
                filter_with(index, partial(same, filter))


def call_with(wrap: Callable[[Any], Any], make: Callable[[], Any]) -> Any:
    return wrap(make())


def same(value: Any) -> Any:
    return value


def filter_with(index: MuveraIndex, make: Callable[[], Any]) -> None:
    found = attempt(lambda: index.find(make()), "filter", "field", "operator", r"\$", "n must be")
    if found is REFUSED:
        assert attempt(lambda: compile_filter(make())) is REFUSED
        assert attempt(lambda: index.delete(filter=make())) is REFUSED
        assert attempt(lambda: index.search_embeddings(TOKENS, filter=make())) is REFUSED
        assert [document.id for document in index.find()] == ["a", "b"]
    else:
        expected = [id for id, metadata in (("a", {"n": 1}), ("b", {})) if make() is None or holds(make(), metadata)]
        assert [document.id for document in found] == expected
        hits = index.search_embeddings(TOKENS, filter=make())
        assert {hit.id for hit in hits} == {document.id for document in found}


NASTY_DOCUMENTS: list[dict[str, Any]] = [
    {"n": 1},
    {"n": 1.0},
    {"n": True},
    {"n": "1"},
    {"n": 0},
    {"n": -0.0},
    {"n": None},
    {},
    {"n": 2**63},
    {"n": -(2**63)},
    {"n": 2**63 - 1},
    {"n": 2**53},
    {"n": 2**53 + 1},
    {"n": float(2**53)},
    {"n": 2**70},
    {"n": float(2**70)},
    {"n": 5e-324},
    {"n": 1.7e308},
    {"n": "a\0b"},
    {"n": "a"},
    {"n": "a\0"},
    {"n": ""},
    {"n": "*?[a]%_"},
    {"n": "\U0010ffff"},
    {"n": "ß"},
    {"n": "SS"},
    {"n": "line\nbreak"},
    {"n": "a" * 5000},
    {"n": ["a", ["b\0"]]},
    {"n": []},
    {"n": {}},
    {"n": {"m": [1, {"o": 2}]}},
    {"n.m": 7},
    {"n": {"m": 7}},
    {"n": [1, 2, 3]},
    {"n": [True, 1]},
    {"n": ["1", 1.0]},
    {"n": "é"},
    {"n": "e\u0301"},
    {"n": "C:\\a_b"},
]
NASTY_FILTERS: list[dict[str, Any]] = [
    *({"n": document["n"]} for document in NASTY_DOCUMENTS if "n" in document and not isinstance(document["n"], dict)),
    *(
        {"n": {op: v}}
        for op in ("$gt", "$gte", "$lt", "$lte", "$ne")
        for v in (
            0,
            -0.0,
            1,
            2**53 + 1,
            float(2**53),
            2**63,
            2**63 - 1,
            2**70,
            10**400,
            -(10**400),
            math.inf,
            -math.inf,
            5e-324,
            "",
            "a",
            "a\0",
            "\U0010ffff",
            "1",
        )
    ),
    *(
        {"n": {op: p}}
        for op in ("$like", "$ilike", "$contains", "$icontains")
        for p in (
            "",
            "%",
            "_",
            "a%",
            "%b",
            "a_b",
            "a\0%",
            "%\0%",
            "a\0b",
            "*",
            "%[a]%",
            "\\",
            "[",
            "]",
            "ss",
            "SS",
            "%\n%",
            "LINE%",
            "%%",
            "a%a%a%a%b",
            "%a" * 200,
            "É",
            "_\u0301",
            "s_",
            "%s%",
            "\\%",
            "a\\_b",
        )
    ),
    {"n": 10**400},
    {"n": {"$in": [10**400, "a\0", None]}},
    {"n": {"$nin": [1, "1", True]}},
    {"n": {"$all": [1, "1"]}},
    {"n": {"$in": [*range(5_000), "a", 2**70]}},
    {"n": {"$in": {1, "a"}}},
    {"n": {"$in": (True,)}},
    {"n": {"$empty": True}},
    {"n": {"$empty": False}},
    {"n": {"$exists": True}},
    {"n": {"$exists": False}},
    {"n.m": 7},
    {"n": {"m": 7}},
    {"n.m.o": 2},
    {"n.m": [1, {"o": 2.0}]},
    {"n": [1.0, 2, 3]},
    {"n": [1, True]},
    {"n": Colour.RED},
    {"n": Level.LOW},
    {"n": np.str_("a")},
    {"n": np.float32(1)},
    {"n": np.bool_(True)},
    {"n": np.uint64(2**63)},
    {"n": Shouting("a")},
    {"n\0": 1},
    {"n.": 1},
    {".n": 1},
    {"n": {"$not": {"$gt": 0}}},
    {"$not": {"n": 1}},
    {"$nor": [{"n": 1}, {"n": "1"}]},
    {"n" * 100_000: 1},
]


def test_nasty_filters_are_answered_as_the_rules_say() -> None:
    ids = [str(i) for i in range(len(NASTY_DOCUMENTS))]
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        index.add_embeddings([TOKENS] * len(ids), ids=ids, metadatas=NASTY_DOCUMENTS)
        for filter in NASTY_FILTERS:
            with case(str(filter)[:200]):
                found = [document.id for document in index.find(filter)]
                assert found == [id for id, doc in zip(ids, NASTY_DOCUMENTS, strict=True) if holds(filter, doc)]


text_values = st.text(alphabet="abS%_*[\\\0ßé", max_size=6)
comparable = st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False) | text_values
stored = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2) | comparable,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=6,
    ),
    max_size=3,
)
operand = st.none() | st.booleans() | st.integers(-2, 2) | comparable
operations = st.one_of(
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), operand, min_size=1, max_size=1),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(-2, 2) | comparable, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin", "$all"]), st.lists(operand, max_size=4), min_size=1),
    st.dictionaries(st.sampled_from(["$like", "$ilike", "$contains", "$icontains"]), text_values, min_size=1),
    st.dictionaries(st.sampled_from(["$exists", "$empty"]), st.booleans(), min_size=1),
)
conditions = st.dictionaries(
    st.sampled_from(["a", "b", "a.b", "a.a", "a.b.a"]),
    operations | operations.map(lambda o: {"$not": o}) | operand | st.lists(operand, max_size=3),
    min_size=1,
    max_size=2,
)
filters = st.recursive(
    conditions,
    lambda inner: (
        st.dictionaries(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3), min_size=1)
        | inner.map(lambda f: {"$not": f})
    ),
    max_leaves=4,
)


@given(documents=st.lists(stored, min_size=1, max_size=6), tested=st.lists(filters, min_size=1, max_size=5))
@settings(fuzz, max_examples=150)
def test_generated_filters_are_answered_as_the_rules_say(documents: list[Any], tested: list[Any]) -> None:
    with MuveraIndex.create(None, ENCODER, FDE) as index:
        ids = [str(i) for i in range(len(documents))]
        index.add_embeddings([TOKENS] * len(ids), ids=ids, metadatas=documents)
        for filter in tested:
            expected = [id for id, metadata in zip(ids, documents, strict=True) if holds(filter, metadata)]
            assert [document.id for document in index.find(filter)] == expected
        assert index.delete(filter=filter) == len(expected)
        assert [document.id for document in index.find()] == [id for id in ids if id not in expected]


def holds(filter: Any, metadata: Mapping[str, Any]) -> bool:
    """Whether a filter admits metadata: the documented rules in plain Python."""
    return all(_holds(name, operand, metadata) for name, operand in filter.items())


def _holds(name: str, operand: Any, metadata: Mapping[str, Any]) -> bool:
    match name:
        case "$not":
            return not holds(operand, metadata)
        case "$and":
            return all(holds(part, metadata) for part in operand)
        case "$or":
            return any(holds(part, metadata) for part in operand)
        case "$nor":
            return not any(holds(part, metadata) for part in operand)
    values = [value for path, value in reached(metadata) if path == name]
    if not isinstance(operand, Mapping):
        return _compares("$eq", operand, values)
    if not all(str(key).startswith("$") for key in operand):
        return all(_holds(f"{name}.{key}", inner, metadata) for key, inner in operand.items())
    return all(
        not _holds(name, value, metadata) if operator == "$not" else _compares(operator, value, values)
        for operator, value in operand.items()
    )


def reached(value: Any, path: str | None = None) -> list[tuple[str, Any]]:
    """Everything in metadata with its path; a list counts as a whole and as each of its elements."""
    if isinstance(value, Mapping):
        inner = [pair for key, v in value.items() for pair in reached(v, key if path is None else f"{path}.{key}")]
        return inner if path is None else [(path, value), *inner]
    assert path is not None
    if isinstance(value, list):
        return [(path, value), *(pair for element in value for pair in reached(element, path))]
    return [(path, value)]


def _compares(operator: str, operand: Any, values: list[Any]) -> bool:
    match operator:
        case "$eq":
            return any(_equal(value, operand) for value in values) or (operand is None and not values)
        case "$ne":
            return not _compares("$eq", operand, values)
        case "$in":
            if len(operand) > 1000:
                wanted = {_kind(v) for v in operand}
                return any(_kind(v) in wanted for v in values)
            return any(_compares("$eq", element, values) for element in operand)
        case "$nin":
            return not _compares("$in", operand, values)
        case "$all":
            return len(operand) > 0 and all(_compares("$eq", element, values) for element in operand)
        case "$exists":
            return operand is bool(values)
        case "$empty":
            return operand is not any(v is not None and v != "" and v != [] and v != {} for v in values)
        case "$contains":
            return any(isinstance(value, str) and operand in value for value in values)
        case "$icontains":
            return any(isinstance(value, str) and operand.casefold() in value.casefold() for value in values)
        case "$like":
            return any(isinstance(value, str) and _like(operand, value) for value in values)
        case "$ilike":
            return any(isinstance(value, str) and _like(operand, value, fold=True) for value in values)
    kind, wanted = _kind(operand)
    comparable = [value for value_kind, value in map(_kind, values) if value_kind == kind]
    if operator == "$gt":
        return any(value > wanted for value in comparable)
    if operator == "$gte":
        return any(value >= wanted for value in comparable)
    if operator == "$lt":
        return any(value < wanted for value in comparable)
    return any(value <= wanted for value in comparable)


def _equal(value: Any, operand: Any) -> bool:
    if isinstance(operand, list) != isinstance(value, list) or isinstance(value, Mapping) != isinstance(
        operand, Mapping
    ):
        return False
    if isinstance(operand, list):
        return len(value) == len(operand) and all(map(_equal_inside, value, operand))
    return _kind(value) == _kind(operand)


def _equal_inside(value: Any, operand: Any) -> bool:
    """Within lists, whole numbers keep all their digits."""
    if isinstance(value, Mapping) and isinstance(operand, Mapping):
        return value.keys() == operand.keys() and all(_equal_inside(value[key], operand[key]) for key in value)
    if isinstance(value, list) and isinstance(operand, list):
        return len(value) == len(operand) and all(map(_equal_inside, value, operand))
    same_kind = isinstance(value, bool) == isinstance(operand, bool)
    return same_kind and type(value) not in (list, dict) and bool(value == operand)


def _kind(value: Any) -> tuple[str, Any]:
    """A value's kind, and the value as it is compared: whole numbers beyond 64 bits as floats."""
    if isinstance(value, (bool, np.bool_)):
        return "boolean", bool(value)
    if isinstance(value, (int, np.integer)):
        whole = int(value)
        try:
            return "number", whole if -(2**63) <= whole < 2**63 else float(whole)
        except OverflowError:
            return "number", math.inf if whole > 0 else -math.inf
    if isinstance(value, (float, np.floating)):
        return "number", float(value)
    return ("string", str.__str__(value)) if isinstance(value, str) else (type(value).__name__, None)


def _like(pattern: str, text: str, *, fold: bool = False) -> bool:
    """SQL's LIKE by the textbook: which lengths of the text the pattern so far can cover.

    With ``fold``, lengths count case-folded characters, but "_" covers one character of the text itself.
    """
    pieces = [character.casefold() if fold else character for character in text]
    whole, ends = "".join(pieces), list(accumulate(map(len, pieces), initial=0))
    one_more = dict(pairwise(ends))
    reachable, escaped = {0}, False
    for place, character in enumerate(pattern):
        if character == "\\" and not escaped and pattern[place + 1 : place + 2] in ("%", "_", "\\"):
            escaped = True
            continue
        if character == "%" and not escaped:
            reachable = set(range(min(reachable), len(whole) + 1)) if reachable else set()
        elif character == "_" and not escaped:
            reachable = {one_more[i] for i in reachable if i in one_more}
        else:
            literal = character.casefold() if fold else character
            reachable = {i + len(literal) for i in reachable if whole.startswith(literal, i)}
        escaped = False
    return len(whole) in reachable


# Paths

PATHS: dict[str, Callable[[Path], Any]] = {
    "none": lambda folder: None,
    "empty": lambda folder: "",
    "number": lambda folder: 3,
    "bytes": lambda folder: os.fsencode(folder / "x"),
    "list": lambda folder: [str(folder)],
    "unprintable": lambda folder: Unprintable(),
    "nul": lambda folder: str(folder / "a\0b"),
    "surrogate": lambda folder: str(folder / "a\ud800b"),
    "long name": lambda folder: folder / ("x" * 300),
    "long path": lambda folder: folder / "/".join(["x" * 200] * 50),
    "file": lambda folder: folder / "file",
    "below a file": lambda folder: folder / "file" / "x",
    "device": lambda folder: "/dev/null",
    "below a device": lambda folder: "/dev/null/x",
    "dangling link": lambda folder: folder / "dangling",
    "link to itself": lambda folder: folder / "loop",
    "pipe": lambda folder: folder / "pipe",
    "missing": lambda folder: folder / "new",
    "missing folders": lambda folder: folder / "x" / "y" / "z",
    "text": lambda folder: str(folder / "new"),
    "trailing slash": lambda folder: f"{folder}/new/",
    "dots": lambda folder: f"{folder}/full/../new",
    "escaped bytes": lambda folder: folder / "a\udcffb",
    "newline": lambda folder: folder / "a\nb",
    "question mark": lambda folder: folder / "a?mode=memory&x=%41#b",
    "unicode": lambda folder: folder / "日本 é",
    "empty folder": lambda folder: folder / "empty",
    "link to a folder": lambda folder: folder / "link",
    "full folder": lambda folder: folder / "full",
}


def places(tmp_path: Path) -> Path:
    tmp_path.mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    return tmp_path


def test_an_index_is_made_where_it_can_be(tmp_path: Path) -> None:
    for name, make in PATHS.items():
        with case(name):
            folder = places(tmp_path / name)
            make_index(make(folder), folder)


def make_index(path: Any, folder: Path) -> None:
    made = attempt(lambda: MuveraIndex.create(path, ENCODER, FDE))
    if made is not REFUSED:
        with made:
            made.add_embeddings([TOKENS], ids=["a"])
        if path is not None:
            with MuveraIndex.open(path, ENCODER) as opened:
                assert "a" in opened
    with create() as source:
        copied = attempt(
            lambda: source.copy_to(f"{path}-copy" if isinstance(path, str) and path.isprintable() else path)
        )
        assert copied is None or copied is REFUSED
    assert (folder / "file").read_text() == "mine"
    assert {entry.name for entry in (folder / "full").iterdir()} == {"mine"}
    assert not (folder / "nowhere").exists() or made is not REFUSED
    assert not (Path.cwd() / "manifest.json").exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_only_an_index_is_opened(read_only: bool, tmp_path: Path) -> None:
    folder = places(tmp_path / "places")
    before = sorted(folder.rglob("*"))
    for name, make in PATHS.items():
        with case(name), pytest.raises((InvalidInputError, IndexFolderError)):
            MuveraIndex.open(make(folder), ENCODER, read_only=read_only)
    assert sorted(folder.rglob("*")) == before


def test_the_working_folder_can_hold_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with MuveraIndex.create(".", ENCODER, FDE) as index:
        index.add_embeddings([TOKENS], ids=["a"])
        monkeypatch.chdir("/")
        index.add_embeddings([TOKENS], ids=["b"])
    with MuveraIndex.open(tmp_path, ENCODER) as index:
        assert [document.id for document in index.find()] == ["a", "b"]


# Collections in BEIR's form

GOOD_FILES = {
    "corpus.jsonl": b'{"_id": "d1", "title": "T", "text": "one"}\n{"_id": "d2", "text": "two"}\n',
    "queries.jsonl": b'{"_id": "q1", "text": "what?"}\n',
    "qrels.tsv": b"query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}
BAD_LINES: list[bytes] = [
    b"",
    b"\n",
    b"null\n",
    b"[]\n",
    b"3\n",
    b"{}\n",
    b'{"_id": null, "text": "x"}\n',
    b'{"_id": "x"}\n',
    b"\xff\xfe\n",
    b'{"_id": "x", "text": null}\n',
    b'{"_id": "x", "text": 3}\n',
    b'{"_id": "x", "text": "a", "title": 3}\n',
    b"[" * 100_000,
    b'{"_id": "x", "text": "\\ud800"}\n',
    b'{"_id": [], "text": "x"}\n',
    b'{"_id": ' + b"1" * 5000 + b', "text": "x"}\n',
    b"q1\td1\n",
    b"q1\td1\tx\n",
    b"q1\n",
    b"\t\t\n",
    b"q1\td1\t1\textra\n",
    b'"' + b"x" * 200_000,
    b"q1\td1\tnan\n",
    b"\0\n",
]


def write_beir(folder: Path, **files: bytes) -> Path:
    for name, data in {**GOOD_FILES, **files}.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", GOOD_FILES)
def test_a_collection_is_read_or_refused(name: str, tmp_path: Path) -> None:
    for line in BAD_LINES:
        for content_ in (line, GOOD_FILES[name] + line):
            with case(repr(content_[:100])):
                write_beir(tmp_path, **{name: content_})
                collection = attempt(lambda: read_beir(tmp_path), re.escape(name))
                if collection is not REFUSED:
                    assert all(
                        isinstance(text, str) for text in (*collection.texts, *collection.ids, *collection.titles)
                    )
                    assert len(collection.ids) == len(collection.texts) == len(collection.titles)
                    assert set(collection.queries) <= set(collection.relevance)


@given(data=st.data())
@fuzz
def test_a_collection_with_random_damage_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_beir(tmp_path_factory.mktemp("beir"))
    name = data.draw(st.sampled_from(sorted(GOOD_FILES)))
    packed = data.draw(st.booleans())
    content_ = bytearray(gzip.compress(GOOD_FILES[name], mtime=0) if packed else GOOD_FILES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content_[data.draw(st.integers(0, len(content_) - 1))] = data.draw(st.integers(0, 255))
    del content_[data.draw(st.integers(1, len(content_))) :]
    (folder / (f"{name}.gz" if packed else name)).write_bytes(content_)
    attempt(lambda: read_beir(folder), re.escape(name))


def test_a_collection_is_read_from_a_folder_only(tmp_path: Path) -> None:
    folder = places(tmp_path / "places")
    for name, make in PATHS.items():
        with case(name):
            assert attempt(partial(read_beir, make(folder)), "folder", "corpus.jsonl") is REFUSED


def test_a_collection_can_be_named_by_text(tmp_path: Path) -> None:
    assert read_beir(str(write_beir(tmp_path))).texts == ["T one", "two"]


# Integrations


def test_langchain_classes_refuse_junk() -> None:
    langchain = pytest.importorskip("langchain_muvera")
    refuse_junk(langchain.MuveraVectorStore, "index")
    refuse_junk(langchain.MuveraEmbeddings, "encoder", but=("none",))
    refuse_junk(lambda value: langchain.MuveraEmbeddings(ENCODER, value), "fde", but=("none",))

"""The index that users hold: how it is made, opened, measured and closed."""

from __future__ import annotations

import os
from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, NoReturn

from muvera_core.calibration import Calibration, CalibrationReport
from muvera_core.collection import create_collection, new_index_id, open_collection, remove_new_index
from muvera_core.encoders import (
    PrecomputedEmbeddings,
    TokenEncoder,
    default_encoder,
    describe_encoder,
    require_encoder,
    require_keep_tokens,
    require_pool_factor,
    require_scipy,
)
from muvera_core.errors import IndexExistsError, IndexLockedError, InvalidInputError, MuveraError
from muvera_core.evaluation import Evaluation, as_grades, evaluate
from muvera_core.index.keeping import KeepingCalls
from muvera_core.index.parts import accelerator_of
from muvera_core.index.reading import ReadingCalls
from muvera_core.index.searching import SearchingCalls
from muvera_core.index.writing import WritingCalls
from muvera_core.lexical import LexicalConfig, resolve_lexical
from muvera_core.search import Question, SearchMode
from muvera_core.set_encoders import FDEConfig, resolve_fde_config
from muvera_core.stage_one import Tuning
from muvera_core.storage import DEFAULT_PRECISION, Manifest, TokenPrecision, holds_index, read_encoder, require_fts5
from muvera_core.tuning import calibrate, choose_lexical_weight, optimize, remove_calibration
from muvera_core.validation import (
    counted,
    require_choice,
    require_count,
    require_encoded,
    require_interval,
    require_known_names,
    require_length,
    require_path,
    require_sequence,
    require_share,
    require_texts,
)

# Fewer parts of documents than this say too little.
_LEAST_QUERIES = 20
# The arguments of ``create`` that ``creating`` passes on.
_SETTINGS = ("token_precision", "pool_factor", "keep_tokens", "lexical", "device", "device_memory")


class MuveraIndex(WritingCalls, SearchingCalls, ReadingCalls, KeepingCalls):
    """A collection of documents that is searched by late interaction.

    Make one with ``open_or_create``, ``create`` or ``open``. Any number of threads may search while one adds or
    deletes.

    >>> with MuveraIndex.create(None) as index:
    ...     _ = index.add(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
    ...     index.search("Which bird is active after dark?", k=1)[0].id
    'owl'
    """

    # Making and opening

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision = DEFAULT_PRECISION,
        pool_factor: int = 1,
        keep_tokens: float = 1.0,
        lexical: LexicalConfig | bool = True,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Make an empty index.

        Args:
            path: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults. Its dimension must be the
                encoder's.
            token_precision: how token vectors are stored. "8bit", "4bit" and "2bit" take that many bits for each of
                their numbers. Searches read the leading two bits of all candidates, and the rest of the best ones.
                "int8" takes 8 bits without slices, and "float16" 16. See the guide on how to choose.
            pool_factor: from 1 to 16. Similar tokens of a document are merged until about one in ``pool_factor`` is
                left. That saves space and time and loses some recall. Above 1, adding documents needs SciPy.
            keep_tokens: from .1 to 1. The share of a document's tokens that is kept, before any are merged. Dropped are
                those that others of its tokens can stand in for. It needs nothing else to be installed. At .75 it keeps
                nearly as much as merging would. For half the tokens and fewer, ``pool_factor`` loses less.
            lexical: settings of the word index, which lexical and hybrid searches (BM25) need. True takes the defaults:
                the texts' words, by the rules of English. False makes none. ``set_lexical`` changes it later.
            device: the device to search on; see ``open``. It is not part of the index.
            device_memory: see ``open``.

        Raises:
            IndexExistsError: the folder is in use.
            DimensionMismatchError: ``fde`` is for vectors of another width.
            InvalidInputError: a setting is invalid, or a word index is asked for that Python's SQLite cannot make.
            ReadOnlyIndexError: the folder cannot be made or written.
            MissingExtraError: ``pool_factor`` is above 1 and SciPy is missing, or the device is CUDA and CuPy is.
            DeviceError: the device cannot be used.
        """
        pool_factor, keep_tokens = require_pool_factor(pool_factor), require_keep_tokens(keep_tokens)
        if pool_factor > 1:
            require_scipy()
        encoder = default_encoder() if encoder is None else require_encoder(encoder)
        fde = resolve_fde_config(fde, encoder.dimension)
        words = resolve_lexical(lexical)
        if words is not None:
            require_fts5()
        manifest = Manifest(
            new_index_id(),
            encoder.fingerprint,
            token_precision,
            fde,
            pool_factor,
            lexical=words,
            encoder_info=describe_encoder(encoder),
            keep_tokens=keep_tokens,
        )
        gpu = accelerator_of(device, device_memory)
        folder = None if path is None else require_path("path", path)
        return cls(create_collection(folder, manifest, gpu), encoder)

    @classmethod
    @contextmanager
    def creating(
        cls,
        path: str | os.PathLike[str] | None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        **settings: Any,
    ) -> Iterator[MuveraIndex]:
        """Make an index in a ``with`` block that fills it. If the block fails, nothing of the index is left.

        After the block the index stays open.

        >>> with MuveraIndex.creating(None) as index:
        ...     _ = index.add(["Owls hunt at night."])
        >>> index.count()
        1

        Args:
            path: see ``create``.
            encoder: see ``create``.
            fde: see ``create``.
            **settings: the other arguments of ``create``.
        """
        require_known_names("MuveraIndex.creating", settings, _SETTINGS)
        folder = None if path is None else require_path("path", path)
        is_new = folder is not None and not os.path.lexists(folder)
        index = cls.create(path, encoder, fde, **settings)
        try:
            yield index
        except BaseException:
            index.close()
            if folder is not None:
                remove_new_index(folder, with_folder=is_new)
            raise

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision | None = None,
        pool_factor: int | None = None,
        keep_tokens: float | None = None,
        lexical: LexicalConfig | bool | None = None,
        show_progress: bool = False,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Open the index in a folder for writing. Make it if there is none.

        Args:
            path: the index's folder.
            encoder: see ``open``.
            fde: see ``create``. None takes the index's own, or the defaults.
            token_precision: see ``create``. None takes the index's own, or "int8". An index that ``optimize`` has
                narrowed opens with its former precision, too.
            pool_factor: see ``create``. None takes the index's own, or 1.
            keep_tokens: see ``create``. None takes the index's own, or 1.
            lexical: see ``create``. None takes the index's own, or True.
            show_progress: see ``open``.
            device: see ``open``.
            device_memory: see ``open``.

        Raises:
            InvalidInputError: the index has another setting than the one given.
            IndexExistsError: the folder holds something else.
            IndexFolderError: the same cases as for ``open``.
        """
        on_device: dict[str, Any] = {"device": device, "device_memory": device_memory}
        folder = require_path("path", path)
        if not holds_index(folder):
            try:
                return cls.create(
                    path,
                    encoder,
                    fde,
                    token_precision=token_precision or DEFAULT_PRECISION,
                    pool_factor=1 if pool_factor is None else pool_factor,
                    keep_tokens=1.0 if keep_tokens is None else keep_tokens,
                    lexical=True if lexical is None else lexical,
                    **on_device,
                )
            except (IndexExistsError, IndexLockedError):
                if not holds_index(folder):
                    raise  # otherwise another process has just made it
        index = cls.open(path, encoder, show_progress=show_progress, **on_device)
        manifest = index._collection.manifest
        if token_precision is not None and manifest.codec.may_replace(token_precision):
            token_precision = None  # the index was narrowed, and what opens it need not know
        given = {
            "fde": fde,
            "token_precision": token_precision,
            "pool_factor": pool_factor,
            "keep_tokens": keep_tokens,
        }
        for name, value in given.items():
            if value is not None and value != getattr(manifest, name):
                index.close()
                raise InvalidInputError(
                    f"{path} was made with {name}={getattr(manifest, name)!r}, which cannot be changed, got {value!r}: "
                    "leave the argument out, or make another index"
                )
        if lexical is not None and resolve_lexical(lexical) != manifest.lexical:
            index.close()
            raise InvalidInputError(
                f"{path} has lexical={manifest.lexical!r}, got {lexical!r}: leave the argument out, or call set_lexical"
            )
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        refresh_interval: float | None = 1.0,
        show_progress: bool = False,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Open an index that ``create`` made.

        Args:
            path: the index's folder.
            encoder: the encoder that the index was made with. None takes the bundled encoder, in the dimension that
                the index was made with. An index never loads a model by itself.
            read_only: refuse changes. Any number of processes can read an index. They need no write permission.
            refresh_interval: if ``read_only``, the seconds after which a search or another read looks whether the
                writer has committed something, and takes it in; see ``refresh``. 0 looks every time, None never.
            show_progress: show bars if stage one has to be derived again, and while documents are copied to a GPU.
            device: the device to search on. "cpu"; "cuda" or "cuda:N" for a GPU, which must work; "auto" for the first
                GPU, or the CPU, with a ``DeviceFallbackWarning``, if the GPU cannot be used.
            device_memory: bytes of GPU memory to cache documents in. None takes half of what is free. A search copies
                the documents to the GPU that it needs and that are not cached.

        Raises:
            InvalidInputError: ``device`` is not the name of a device, or ``refresh_interval`` is negative.
            MissingExtraError: the device is CUDA and CuPy is not installed.
            DeviceError: the device cannot be used.
            NotAnIndexError: the folder holds no index.
            EncoderMismatchError: the index was made with another encoder.
            UnsupportedFormatError: a newer muvera wrote the index, or an older one did and ``read_only`` is set.
            IndexLockedError: another writer has the index open.
            ReadOnlyIndexError: the folder cannot be written and ``read_only`` is not set.
            CorruptIndexError: files are missing or damaged.
            StorageError: files cannot be read.
        """
        folder = require_path("path", path)
        refresh_interval = require_interval("refresh_interval", refresh_interval)
        gpu = accelerator_of(device, device_memory)
        encoder = default_encoder(read_encoder(folder)) if encoder is None else require_encoder(encoder)
        collection = open_collection(
            folder,
            encoder=encoder.fingerprint,
            read_only=read_only,
            show_progress=show_progress,
            accelerator=gpu,
        )
        return cls(collection, encoder, refresh_interval=refresh_interval)

    # Measuring

    def evaluate(
        self,
        queries: Sequence[str],
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        k: int = 10,
        n_candidates: int | None = None,
        mode: SearchMode = "late",
        lexical_weight: float | None = None,
        show_progress: bool = False,
    ) -> Evaluation:
        """Measure what searches find, against exact MaxSim and against labels, and how long they take.

        Args:
            queries: example queries, like those that users ask.
            relevant: for each query the ids of the documents that answer it, or a grade by id. These labels add nDCG,
                MRR, hit rate, precision, recall and average precision.
            k: number of hits.
            n_candidates: number of candidates to rerank; see ``search``.
            mode: what ranks documents; see ``search``. Exact MaxSim is the reference in every mode.
            lexical_weight: BM25's share in mode "hybrid"; see ``search``.
            show_progress: show bars on standard error.

        Raises:
            InvalidInputError: there are no queries or no documents, or ``relevant`` is not as long as ``queries``.
        """
        self._collection.require_open()
        return evaluate(
            self,
            queries,
            relevant,
            k,
            n_candidates,
            mode=mode,
            lexical_weight=lexical_weight,
            show_progress=show_progress,
        )

    def optimize(
        self,
        target_recall: float = 0.95,
        queries: Sequence[str] | None = None,
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        k: int = 10,
        n_queries: int = 400,
        max_bytes_per_token: int | None = None,
        show_progress: bool = False,
    ) -> Tuning:
        """Choose stage one for the documents that the index has, and use it from now on.

        Measures with how many candidates the encoding that the index was made with reaches the target. If a learned
        encoding (``LearnedSetEncoder``) can be faster than that, it is learned from the documents and measured, too.
        The fastest one that reaches the target is taken, with the number of candidates that it needs. This takes a
        fraction of the time of encoding the documents' texts.

        If searches rerank all documents anyway, because there are so few, stage one stays as it is.

        Searches go on meanwhile; writes wait. The vectors of all documents must fit in memory. Documents that are added
        later are encoded with the same encoder: optimize again when the index has grown several times over, or is about
        something else. Processes that read the index use the choice after ``refresh``.

        Args:
            target_recall: the share of exact MaxSim's ``k`` best documents that searches should find, on average over
                questions like those measured. The number of candidates is the smallest that reaches it.
            queries: example queries, the more the better. Of 100 or more, half are for measuring and half for fitting.
                None takes parts of the documents instead.
            relevant: for each query the ids of the documents that answer it, or a grade by id. With them, BM25's share
                in hybrid searches is chosen, too: one for all questions, if that finds more than a share that is chosen
                for each question. Then ``measured`` has "hybrid_ndcg", "hybrid_ndcg_by_question" and, if one share was
                chosen, "lexical_weight".
            k: number of hits to tune for.
            n_queries: number of parts of documents to measure with if ``queries`` is None.
            max_bytes_per_token: first rewrite tokens that take more bytes than this in a coarser precision: the best of
                "8bit", "4bit" and "2bit" that fits. All documents change at once, or none. That needs room for the new
                tokens beside the present ones, and cannot be undone: what was rounded away does not come back, so
                tokens are never rewritten with more bytes. Recall is then measured against exact MaxSim of the
                rewritten tokens. None leaves tokens as they are.
            show_progress: show bars on standard error.

        Returns:
            What was chosen and measured. The index's manifest keeps it. If nothing reaches the target, the
            choice is the one that comes nearest. In ``measured``, "recall" is that of the queries measured; that of all
            such queries is within "recall_margin" of it, with a confidence of 95 %. "milliseconds" is the time of a
            search without encoding the text, "milliseconds_untuned" the same before the index was ever optimized.
            With ``max_bytes_per_token`` there are the bytes that a token takes now ("bytes_per_token") and took before.

        Warns:
            NothingToOptimizeWarning: searches rerank all documents anyway. Recall is then not measured.

        Raises:
            InvalidInputError: the target is outside [0, 1], ``queries`` is empty, ``relevant`` does not fit them, there
                are at most ``k`` documents, or no precision takes as few bytes as ``max_bytes_per_token``.
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: there is no room for the learned encoder.
        """
        self._collection.require_open()
        target_recall, k = require_share("target_recall", target_recall), require_count("k", k)
        questions = None if queries is None else self._require_questions(queries)
        judged = None
        if relevant is not None:
            judged = list(zip(questions or (), _require_grades(relevant, queries), strict=True))
            if self._collection.manifest.lexical is None:
                raise InvalidInputError(
                    "relevant chooses BM25's share, but there is no word index: call set_lexical(True)"
                )
            if not self.get(sorted({id for _, grades in judged for id, grade in grades.items() if grade > 0})):
                raise InvalidInputError(
                    f"the index has no relevant document of {counted(len(judged), 'question')}: give ids that "
                    "documents were added with"
                )
        tuning = optimize(
            self._collection,
            self._writer,
            None if questions is None else [question.tokens for question in questions],
            None if isinstance(self._encoder, PrecomputedEmbeddings) else self._encoder,
            target_recall=target_recall,
            k=k,
            n_queries=require_count("n_queries", n_queries),
            show_progress=show_progress,
            max_bytes_per_token=max_bytes_per_token,
        )
        if not judged:
            return tuning
        words = choose_lexical_weight(self._collection, self._writer, judged, k, show_progress=show_progress)
        return replace(tuning, measured=tuning.measured | words)

    def calibrate(
        self,
        queries: Sequence[str] | None = None,
        relevant: Sequence[Mapping[str, float] | AnyCollection[str]] | None = None,
        *,
        mode: Literal["late", "hybrid"] = "late",
        n_queries: int = 300,
        show_progress: bool = False,
    ) -> CalibrationReport:
        """Learn what scores say about relevance, so that ``hit.relevance`` is a probability from now on.

        Then one ``min_score`` fits all questions, and a question without an answer can get no hits at all. The
        probability depends on a document's score and on the best ten scores of the same question, neither on ``k`` nor
        on other hits. It is that of questions half of which have an answer in the index.

        Without judged questions, parts of documents stand in for questions, each with and without its document in the
        index. Judged questions correct that map: the more there are, the more they count.

        The map is stored with the index and committed at once. Searches go on meanwhile; writes wait. Calibrate again
        when the index has grown several times over, is about something else, or after ``optimize`` with
        ``max_bytes_per_token``. Processes that read the index use it after ``refresh``.

        Args:
            queries: questions like those that users ask, also some without an answer. None takes parts of documents.
            relevant: for each query the ids of all documents that answer it, or a grade by id. Nothing for a question
                that the index cannot answer.
            mode: mode of search to calibrate. "hybrid" needs judged questions: a part of a document has its very words,
                as no question has. Until it is calibrated itself, it uses what was learned for "late", since its scores
                are on the same scale. Mode "lexical" cannot be calibrated.
            n_queries: number of parts of documents.
            show_progress: show bars on standard error.

        Returns:
            What was measured on questions that were held out.

        Raises:
            InvalidInputError: only one of ``queries`` and ``relevant`` is given, they are empty or differ in length,
                none of the relevant documents is in the index, ``n_queries`` is below 20, or there are fewer than 10
                documents.
            ReadOnlyIndexError: the index was opened for reading.
        """
        self._collection.require_writable()
        n_queries = require_count("n_queries", n_queries, _LEAST_QUERIES)
        mode = require_choice("mode", mode, ("late", "hybrid"))
        if mode == "hybrid" and queries is None:
            raise InvalidInputError("mode 'hybrid' is calibrated by judged questions: give queries and relevant")
        if (queries is None) != (relevant is None):
            missing, given = ("queries", "relevant") if queries is None else ("relevant", "queries")
            raise InvalidInputError(f"calibrate needs {missing} with {given}: give both, or neither")
        judged: list[tuple[Question, set[str]]] = []
        if queries is not None and relevant is not None:
            questions, grades = self._require_questions(queries), _require_grades(relevant, queries)
            ids = [{id for id, grade in each.items() if grade > 0} for each in grades]
            judged = list(zip(questions, ids, strict=True))
        return calibrate(
            self._collection,
            self._writer,
            None if isinstance(self._encoder, PrecomputedEmbeddings) else self._encoder,
            judged,
            n_queries=n_queries,
            show_progress=show_progress,
            mode=mode,
        )

    def _require_questions(self, queries: Sequence[str]) -> list[Question]:
        """Example queries with their token vectors. Raises InvalidInputError if there are none."""
        texts = require_texts("queries", queries)
        if not texts:
            raise InvalidInputError("queries is empty: give example queries, or None to use parts of documents")
        encoded = require_encoded(self._encoder.encode_queries(texts), len(texts), self._encoder.dimension)
        return [Question(tokens, text) for tokens, text in zip(encoded, texts, strict=True)]

    def remove_calibration(self) -> bool:
        """Forget what ``calibrate`` learned: ``hit.relevance`` is ``hit.normalized_score`` again.

        Returns:
            Whether there was a calibration.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
        """
        return remove_calibration(self._collection, self._writer)

    @property
    def calibration(self) -> Mapping[str, Calibration]:
        """What ``calibrate`` learned, by mode of search. Empty if the index is not calibrated."""
        self._collection.require_open()
        return self._collection.learned.calibrations

    # Closing

    def close(self) -> None:
        """Save stage one, which makes the next opening fast, and release the folder. Documents are safe without it.

        A search that is running in another thread ends with its result or with IndexClosedError.
        """
        self._collection.close()

    def __enter__(self) -> MuveraIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise MuveraError(
            "an index cannot be pickled: it holds open files and a lock. Pass its path and open it there, "
            "with read_only=True"
        )

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else repr(str(self.path))
        content = counted(len(self), "document") if self._collection.is_open else "closed"
        return f"<MuveraIndex {place}: {content}>"


def _require_grades(
    relevant: Sequence[Mapping[str, float] | AnyCollection[str]], queries: Sequence[str] | None
) -> list[Mapping[str, float]]:
    """For each query the grades of the relevant documents, by id. Raises InvalidInputError if they do not fit."""
    if queries is None:
        raise InvalidInputError("relevant names the documents that answer queries: give queries, too")
    require_length("relevant", require_sequence("relevant", relevant), len(queries), "query")
    return [as_grades(each) for each in relevant]

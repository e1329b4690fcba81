"""The engine of an index whose documents are spread over shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from muvera_core.calibration import CalibrationReport
from muvera_core.distributed.writing_shards import WritingShards
from muvera_core.encoders import TokenEncoder, warn
from muvera_core.errors import InvalidInputError, NothingToOptimizeWarning
from muvera_core.hits import Hit
from muvera_core.index import Judged, MuveraIndex
from muvera_core.search import Question, SearchMode, SearchOptions, StageClock
from muvera_core.set_encoders import LearnedSetEncoder
from muvera_core.stage_one import Tuning
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings
from muvera_core.tuning import (
    MIN_DOCUMENTS,
    Corpus,
    MadeQuestion,
    best_lexical_weight,
    measure_relevance,
    queries_to_measure,
)

# Documents that stage one is chosen by. They are drawn at random from all shards.
_SAMPLE = 20_000


class ShardedEngine(WritingShards):
    """Fulfils ``Engine``. Tuning learns from a sample of all shards, and every shard adopts what was learned."""

    def optimize(
        self,
        questions: Sequence[FloatArray] | None,
        encoder: TokenEncoder | None,
        *,
        target_recall: float,
        k: int,
        n_queries: int,
        max_bytes_per_token: int | None,
        show_progress: bool,
    ) -> Tuning:
        """See ``Engine``. The encoding is chosen and learned by a sample; each shard finds what it needs of it.

        A shard needs as many candidates as reach the target among its own ``k`` best documents. Of the ``k`` best of
        all shards, which are fewer and nearer, searches find more. ``measured["recall"]`` is the lowest of the shards.
        """
        self.require_writable()
        if max_bytes_per_token is not None:
            self._write_all("narrow_tokens", max_bytes_per_token)
        with MuveraIndex.create(
            None, self._encoder, self.manifest.fde, token_precision=self.manifest.token_precision, lexical=False
        ) as sample:
            ids = self._fill(sample)
            chosen = sample.engine.optimize(
                questions,
                encoder,
                target_recall=target_recall,
                k=k,
                n_queries=n_queries,
                max_bytes_per_token=None,
                show_progress=show_progress,
            )
            collection = sample.engine.collection
            if not chosen.measured["n_queries"]:
                return chosen
            queries = queries_to_measure(Corpus(collection, collection.snapshot(), encoder), questions, n_queries)
            made_of = []
            if queries.made_of is not None:
                id_of = dict(zip(collection.snapshot().keys.tolist(), ids, strict=True))
                made_of = [id_of[key] for key in queries.made_of.tolist()]
            best = collection.stage_one.encoder
        learned = best if isinstance(best, LearnedSetEncoder) else None
        tunings = self._write_all("adopt_encoder", learned, queries, made_of, target_recall, k)
        adopted: list[Tuning] = [tuning for tuning in tunings.values() if tuning is not None]
        if not adopted:
            warn(
                f"optimize leaves stage one as it is: no shard has more than k={k} documents", NothingToOptimizeWarning
            )
            return chosen
        lowest = min(adopted, key=lambda tuning: float(tuning.measured["recall"]))
        measured = {
            **lowest.measured,
            "n_documents": self.n_documents,
            "seconds_to_choose": chosen.measured["seconds_to_choose"],
        }
        return replace(lowest, n_candidates=max(tuning.n_candidates for tuning in adopted), measured=measured)

    def _fill(self, sample: MuveraIndex) -> list[str]:
        """Fill an index with documents that are drawn from all shards. Returns their ids in the order of their keys."""
        answers = self._of_some("sample", {shard: (n,) for shard, n in self._shares(_SAMPLE).items()})
        drawn = [each for some in answers.values() for each in some]
        drawn = [drawn[i] for i in np.random.default_rng(0).permutation(len(drawn))]
        ids = [record.id for record, _ in drawn]
        texts = [record.text or "" for record, _ in drawn]
        sample.add_embeddings(TokenEmbeddings.from_list([tokens for _, tokens in drawn]), ids, texts)
        return ids

    def _shares(self, n: int) -> dict[int, int]:
        """How many of ``n`` documents to draw from each shard, so that all documents are as likely to be drawn."""
        sizes = {shard: documents for shard, (documents, _) in self._of_all("n_documents_and_tokens").items()}
        return {shard: math.ceil(n * size / sum(sizes.values())) for shard, size in sizes.items() if size}

    def choose_lexical_weight(self, judged: Judged, k: int, *, show_progress: bool) -> dict[str, float]:
        """See ``Engine``."""
        self.require_writable()
        measured = best_lexical_weight(self._search, judged, k, show_progress=show_progress)
        self.learn(replace(self.learned, lexical_weight=measured.get("lexical_weight")))
        return measured

    def calibrate(
        self,
        encoder: TokenEncoder | None,
        judged: Sequence[tuple[Question, AbstractSet[str]]],
        *,
        mode: SearchMode,
        n_queries: int,
        show_progress: bool,
    ) -> CalibrationReport:
        """See ``Engine``. Writes go on meanwhile."""
        self.require_writable()
        n_documents = self.n_documents
        if n_documents < MIN_DOCUMENTS:
            raise InvalidInputError(
                f"calibrate needs at least {MIN_DOCUMENTS} documents, got {n_documents}: add documents first"
            )
        report = measure_relevance(
            self._search,
            self._known,
            judged,
            self._made_questions(n_queries, with_texts=encoder is not None),
            n_documents,
            mode=mode,
            show_progress=show_progress,
        )
        self.learn(self.learned.with_calibration(mode, report.calibration))
        return report

    def _made_questions(self, n: int, *, with_texts: bool) -> list[MadeQuestion]:
        asked = {shard: (share, with_texts) for shard, share in self._shares(n).items()}
        return [each for some in self._of_some("made_questions", asked).values() for each in some]

    def _known(self, ids: Sequence[str]) -> set[str]:
        answers = self._of_some("known", {shard: (of_it,) for shard, of_it in self._by_owner(ids).items()})
        return {id for known in answers.values() for id in known}

    def _search(self, questions: Sequence[Question], options: SearchOptions) -> list[list[Hit]]:
        return self.search(questions, options, StageClock())

"""What a model makes of a text: its length limits, which tokens get vectors, where they are in the text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from muvera_core.encoders.sentence_transformer.tokenizer import ModelTokenizer
from muvera_core.encoders.text.text_windows import TextCutter, TextWindow
from muvera_core.encoders.text.tokenizing import Span, Wordpieces, longest_reading
from muvera_core.errors import EncoderError
from muvera_core.token_embeddings import IntArray
from muvera_core.validation import has_visible_text

Task = Literal["document", "query"]
# A tokenizer without a limit has a huge number here (transformers' VERY_LARGE_INTEGER).
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Rows:
    """The vectors that the model gives for one text.

    Attributes:
        spans: start and end character of each, int64, shape (rows, 2). A marker has start == end.
        leading: number of rows before the text's first token.
        trailing: number of rows after its last token.
    """

    spans: IntArray
    leading: int
    trailing: int

    def kept(self, window: TextWindow) -> IntArray:
        """Which rows of a window count, as positions."""
        return window.kept(self.spans, self.leading, self.trailing)


class TextInputs:
    """The inputs of one task, "document" or "query", of a ``MultiVectorEncoder``.

    Nothing here runs the model. Calls of ``rows`` must not run at the same time as others of the same model, because
    transformers' tokenizers keep their padding and truncation in a state that all threads share.

    Args:
        model: the ``MultiVectorEncoder``.
        task: "document" or "query".
        other: the inputs of the model's other task, to share what is equal.

    Attributes:
        task: "document" or "query".
        transformer: the module of the model that tokenizes its texts.
        prompt: the text that the model puts before each text.
        limit: number of tokens, prompt and markers included, that the model encodes at once; None if there is no limit.
        tokenizer: the model's.
    """

    def __init__(self, model: Any, task: Task, other: TextInputs | None = None) -> None:
        self._model, self.task = model, task
        self.transformer = transformer_of(model, task)
        self.prompt = _prompt(model, task)
        self.tokenizer: ModelTokenizer
        if other is not None and other.transformer.tokenizer is self.transformer.tokenizer:
            self.tokenizer = other.tokenizer  # a copy of a large vocabulary takes a second to make
        else:
            self.tokenizer = ModelTokenizer(self.transformer.tokenizer)
        self.limit, self._cut = _limits(self.transformer, task)
        # A model that takes images would load a text such as "figure.png" as an image.
        self._names_texts = len(getattr(model, "modalities", ("text",))) > 1
        if self.limit is not None and self.frame >= self.limit:
            raise EncoderError(
                f"the prompt and the markers of a {task} have {self.frame} tokens, but the model encodes {self.limit} "
                f"tokens at once: raise {task}_length"
            )

    @cached_property
    def has_known_rows(self) -> bool:
        """Whether one can tell which tokens get vectors without running the model: not if it merges tokens."""
        from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling

        pooled = (m for m in self._model if isinstance(m, BaseTokenPooling) and m.applies_to(self.task))
        own = all(type(m).__module__.startswith("sentence_transformers.") for m in self._model)
        return own and not any(pooled)

    @cached_property
    def frame(self) -> int:
        """Number of tokens of the prompt and the markers."""
        if self._is_plain:
            return len(self.tokenizer.with_markers(self.prompt or "").ids)
        return int(self._features("")["attention_mask"].sum())

    def model_input(self, text: str) -> Any:
        """What ``encode_document`` and ``encode_query`` take for a text."""
        return {"text": text} if self._names_texts else text

    def room(self, at_most: int) -> int:
        """Number of tokens of a text that are encoded, with a limit of our own."""
        return at_most if self.limit is None else min(at_most, self.limit - self.frame)

    def has_tokens(self, pieces: Wordpieces) -> bool:
        """Whether the model gets any token for a text. Without markers and prompt, it can fail for an empty one."""
        return self.frame > 0 or bool(pieces.ids)

    def as_cut(self, pieces: Wordpieces) -> Wordpieces:
        """The same with the ``end`` at which the model cuts the text."""
        if self.limit is None or not self._is_plain or self._cutter.fits(pieces.text[: pieces.end], len(pieces.ids)):
            return pieces
        n_prompt = len(self.prompt or "")
        encoding = self.tokenizer.with_markers((self.prompt or "") + self.as_given(pieces))
        ends = [end - n_prompt for start, end in encoding.offsets if start < end and end > n_prompt]
        n_left = len(ends) - (len(encoding.ids) - self.limit)
        end = min(ends[n_left - 1] if n_left > 0 else 0, pieces.end)
        return replace(pieces, end=end if has_visible_text(pieces.text[end:]) else len(pieces.text))

    def as_given(self, pieces: Wordpieces) -> str:
        """The part of a text that is passed to the model, which cuts it. Only the start of a very long text is."""
        if self.limit is None or self.limit != self._cut:
            return pieces.text[: pieces.end]
        return pieces.text[: longest_reading(self.limit)]

    def windows(self, pieces: Wordpieces) -> list[TextWindow]:
        """The windows of a text. A text that fits has one."""
        # If all rows of a window are kept, windows must not overlap.
        return self._cutter.windows(pieces, may_overlap=self.has_known_rows)

    def rows(self, text: str) -> Rows:
        """Which tokens get vectors, in the order of ``encode_document([text])``."""
        features = self._features(text)
        ids = features["input_ids"][0]
        is_real = _attended(features)
        is_scored = self._mask(features, is_real)
        expansion = features.get("query_expansion_positions")
        if expansion is not None:
            is_real = is_real & ~expansion[0].bool().numpy()
        real = np.flatnonzero(is_real)
        spans = np.zeros((len(ids), 2), dtype=np.int64)
        is_text = np.zeros(len(ids), bool)
        for place, span in zip(real, self._spans(text, ids[real].tolist()), strict=True):
            if span is not None:
                spans[place], is_text[place] = span, True
        places = np.flatnonzero(is_text)
        first, last = (int(places[0]), int(places[-1])) if len(places) else (len(ids), len(ids))
        spans[last + 1 :] = spans[last, 1] if len(places) else 0
        # A marker in the middle has the place where the token before it ends.
        for inner in range(first + 1, last):
            if not is_text[inner]:
                spans[inner] = spans[inner - 1, 1]
        scored = np.flatnonzero(is_scored)
        return Rows(spans[scored], int((scored < first).sum()), int((scored > last).sum()))

    def scored(self, features: Any) -> IntArray:
        """The tokens of one preprocessed input that get vectors, as positions."""
        return np.flatnonzero(self._mask(features, _attended(features))).astype(np.int64)

    @cached_property
    def _cutter(self) -> TextCutter:
        def count(text: str) -> int:
            return len(self.tokenizer.with_markers((self.prompt or "") + text).ids)

        return TextCutter(self.limit, self.frame, self.tokenizer.pieces, count if self._is_plain else None, self.task)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the model's input is the prompt, the text and the tokenizer's markers, and nothing else."""
        return "message" not in self.transformer.modality_config and self.transformer.transformer_task != "retrieval"

    def _features(self, text: str) -> Any:
        return self._model.preprocess([self.model_input(text)], prompt=self.prompt, task=self.task)

    def _mask(self, features: Any, is_real: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which tokens of a text get vectors, by the model's own mask."""
        import torch
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        ids = features["input_ids"].cpu()
        masked = {"input_ids": ids, "attention_mask": torch.from_numpy(is_real.astype(np.int64))[None]}
        if "query_expansion_positions" in features:
            masked["query_expansion_positions"] = features["query_expansion_positions"]
        for module in self._model:
            if isinstance(module, MultiVectorMask):
                masked = module(masked, task=self.task)
        return np.asarray(masked["attention_mask"][0].bool().numpy())

    def _spans(self, text: str, ids: list[int]) -> list[Span | None]:
        """The span of each id in the text; None for prompt and markers."""
        if self._is_plain:
            spans = self._spans_after_prompt(text, ids)
            if spans is not None:
                return spans
        return self._spans_by_search(text, ids)

    def _spans_after_prompt(self, text: str, ids: list[int]) -> list[Span | None] | None:
        """The spans if the model's input is prompt and text, cut at the end at most; None if it is not."""
        n_prompt = len(self.prompt or "")
        encoding = self.tokenizer.with_markers((self.prompt or "") + text)
        same = 0
        while same < min(len(ids), len(encoding.ids)) and ids[same] == encoding.ids[same]:
            same += 1
        n_cut = len(encoding.ids) - len(ids)
        if n_cut < 0 or ids[same:] != encoding.ids[same + n_cut :]:
            return None
        offsets = encoding.offsets[:same] + encoding.offsets[same + n_cut :]
        return [
            (max(0, start - n_prompt), end - n_prompt) if start < end and end > n_prompt else None
            for start, end in offsets
        ]

    def _spans_by_search(self, text: str, ids: list[int]) -> list[Span | None]:
        """The spans of those ids that the text alone has, too, in the same order."""
        best: list[Span | None] = [None] * len(ids)
        for before in ("", " "):  # a token at the start of the text can have the space before it
            alone = self.tokenizer.pieces([before + text], max(1, len(ids)))[0]
            spans: list[Span | None] = [None] * len(ids)
            for block in SequenceMatcher(None, alone.ids, ids, autojunk=False).get_matching_blocks():
                for i in range(block.size):
                    start, end = (max(0, edge - len(before)) for edge in alone.spans[block.a + i])
                    spans[block.b + i] = (start, end) if start < end else None
            best = max(best, spans, key=lambda found: sum(span is not None for span in found))
        return best


def _attended(features: Any) -> npt.NDArray[np.bool_]:
    """Which tokens of one preprocessed input the model's attention uses."""
    attention = features.get("attention_mask")
    mask = np.ones(len(features["input_ids"][0]), bool) if attention is None else attention[0].bool().numpy()
    return np.asarray(mask)


def transformer_of(model: Any, task: Task) -> Any:
    """The module that tokenizes the texts of a task."""
    from sentence_transformers.base.modules import Router, Transformer

    first = model[0]
    if isinstance(first, Router):
        routes = first.sub_modules
        first = (routes[task] if task in routes else next(iter(routes.values())))[0]
    if not isinstance(first, Transformer):
        raise EncoderError(
            f"the model's first module is a {type(first).__name__}, but only models that begin with a Transformer, or "
            "a Router of them, can be used"
        )
    return first


def _prompt(model: Any, task: Task) -> str | None:
    """The prompt that ``encode_query`` or ``encode_document`` chooses."""
    names = ("query",) if task == "query" else ("document", "passage", "corpus")
    name = next((name for name in names if name in model.prompts), model.default_prompt_name)
    prompt: str | None = model.prompts.get(name)
    return prompt


def _limits(transformer: Any, task: Task) -> tuple[int | None, int | None]:
    """The most tokens that can be encoded at once, and the number to which the model cuts. None stands for no limit."""
    tokenizer_limit = getattr(transformer.tokenizer, "model_max_length", None)
    cut = transformer.query_length if task == "query" else transformer.document_length
    expansion = transformer.query_expansion if task == "query" else None
    text_settings = transformer.processing_kwargs.get("text") or {}
    if expansion is not None and expansion["strategy"] == "fixed":
        cut = expansion["length"]
    else:
        if expansion is not None and cut is not None:
            cut = max(cut, expansion["length"])
        cut = text_settings.get("max_length", cut)
    cut = tokenizer_limit if cut is None else cut
    cut = None if cut is None or cut >= _NO_LIMIT else int(cut)
    positions = positions_of(transformer)
    known = [limit for limit in (cut, positions) if limit is not None]
    return (min(known) if known else None), cut


def positions_of(transformer: Any) -> int | None:
    """The number of positions of the model; None if it is not known."""
    config = transformer.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    embeddings = getattr(transformer.model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    # RoBERTa and related models count positions from the one after the padding's.
    return limit if padding is None else limit - padding - 1

"""Prints hits and indexes, as text in the width of the terminal or as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from muvera_core.calibration import Calibration
from muvera_core.cli.reading_options import reading_as_text
from muvera_core.cli.word_options import words_as_text
from muvera_core.corpus import Reading, as_unicode
from muvera_core.errors import InvalidInputError
from muvera_core.hits import Hit, TokenMatch
from muvera_core.maintenance import IndexInfo
from muvera_core.stage_one import Tuning
from muvera_core.storage import FORMAT_VERSION, Manifest
from muvera_core.sync import READING_NOTE
from muvera_core.validation import counted

_SNIPPET_LINES = 3
_EXPLAINED_WORDS = 6


@dataclass(frozen=True)
class WordMatch:
    """A word of the query, and the document's word, or the patch of its image, that matches it best."""

    query: str
    document: str
    similarity: float


def hit_as_json(rank: int, hit: Hit, matches: Sequence[WordMatch] | None, *, with_passage: bool = False) -> str:
    """A hit as a line of JSON. Its passage, which can be null, is there if it was asked for."""
    content: dict[str, Any] = {
        "rank": rank,
        "id": hit.id,
        "score": round(hit.score, 4),
        "normalized_score": round(hit.normalized_score, 4),
        "relevance": round(hit.relevance, 4),
        "lexical_score": None if hit.lexical_score is None else round(hit.lexical_score, 4),
        "text": hit.text,
        "metadata": hit.metadata,
    }
    if with_passage:
        content["passage"] = None if hit.passage is None else asdict(hit.passage)
    if hit.image_size is not None:
        content["image"] = None if hit.image is None else as_unicode(hit.image)
    if matches is not None:
        content["matches"] = [
            {"query": match.query, "document": match.document, "similarity": round(match.similarity, 4)}
            for match in matches
        ]
    return json.dumps(content, ensure_ascii=False)


def hit_as_text(rank: int, hit: Hit, matches: Sequence[WordMatch] | None) -> str:
    """A hit as lines of text: rank, relevance and id, then its image's path and its best passage or its beginning."""
    head = f"{rank}. {hit.relevance:.3f}  {on_one_line(hit.id)}"
    lines = [click.style(head, bold=True)]
    if hit.image_size is not None:
        lines.append(
            "   " + ("(an image that is in no file)" if hit.image is None else on_one_line(as_unicode(hit.image)))
        )
    if hit.text is not None or hit.image_size is None:
        text = hit.text if hit.passage is None else hit.passage.text
        lines += _snippet("(no text)" if text is None else text)
    if matches:
        words = (f"{match.query} → {match.document} {match.similarity:.2f}" for match in matches[:_EXPLAINED_WORDS])
        lines += _snippet(f"[{', '.join(words)}]")
    return "\n".join(lines)


def _snippet(text: str) -> list[str]:
    """The beginning of a text, in the width of the terminal."""
    width = max(20, shutil.get_terminal_size().columns - 4)
    start = " ".join(on_one_line(text[: width * _SNIPPET_LINES * 2]).split())
    if any(unicodedata.east_asian_width(character) in "WF" for character in start):
        width //= 2  # such characters take two columns
    return textwrap.wrap(
        start, width, max_lines=_SNIPPET_LINES, placeholder=" …", initial_indent="   ", subsequent_indent="   "
    )


def matched_words(query: str, hit: Hit, matches: Iterable[TokenMatch]) -> list[WordMatch]:
    """The best match of each word of the query, best first. Empty if the document's words are not known."""
    best: dict[tuple[int, int], WordMatch] = {}
    for match in matches:
        found = _matched_part(hit, match)
        if found is None or not _is_word(match.query_token):
            continue
        place = _whole_word(query, match.query_span)
        if place not in best or best[place].similarity < match.similarity:
            best[place] = WordMatch(query[slice(*place)], found, match.similarity)
    return sorted(best.values(), key=lambda match: -match.similarity)


def _matched_part(hit: Hit, match: TokenMatch) -> str | None:
    """The document's word, or the patch of its image. None if it is a marker, or is not known."""
    if match.patch is not None:
        return "patch {},{}".format(*match.patch)
    if match.document_span is None or match.document_token is None or hit.text is None:
        return None
    return hit.text[slice(*_whole_word(hit.text, match.document_span))] if _is_word(match.document_token) else None


def _is_word(token: str) -> bool:
    """Whether a token is more than a marker or punctuation."""
    return any(map(str.isalnum, token))


def _whole_word(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """The bounds of the whole word that contains a token."""
    start, end = span
    if text[start:end].isalnum():
        while start > 0 and text[start - 1].isalnum():
            start -= 1
        while end < len(text) and text[end].isalnum():
            end += 1
    return start, end


def info_as_text(info: IndexInfo) -> str:
    """The contents, settings and sizes of an index, as lines of text."""
    manifest = info.manifest
    settings = ", ".join(f"{name} {value}" for name, value in asdict(manifest.fde).items())
    pruned = "" if manifest.keep_tokens == 1 else f", {manifest.keep_tokens:g} of them kept"
    pooled = "" if manifest.pool_factor == 1 else f", pooled by {manifest.pool_factor}"
    rows = {
        "index": str(info.path),
        "documents": f"{info.n_documents:,}",
        "tokens": f"{info.n_tokens:,}",
        "encoder": _encoder_as_text(manifest),
        "format": f"version {FORMAT_VERSION}, tokens in {manifest.token_precision}{pruned}{pooled}",
        "stage one": settings,
        **({} if manifest.tuning is None else {"optimized": tuning_as_text(manifest.tuning)}),
        **_reading_row(info.learned.notes),
        "words": words_as_text(manifest.lexical),
        **({} if info.learned.lexical_weight is None else {"hybrid": f"BM25's share {info.learned.lexical_weight:g}"}),
        **({"calibrated": _calibrations_as_text(info.learned.calibrations)} if info.learned.calibrations else {}),
        "kernel": f"{info.kernel} (exact MaxSim on this machine's CPU)",
        "size": f"{size_as_text(info.n_bytes)}, {size_as_text(info.bytes_per_document)} per document",
    }
    lines = [f"{name:<11}{on_one_line(value)}" for name, value in rows.items()]
    return "\n".join(lines + [f"{size_as_text(size):>13}  {on_one_line(name)}" for name, size in info.sizes.items()])


def _reading_row(notes: Mapping[str, Any]) -> dict[str, str]:
    """How files are read, if the index follows files."""
    try:
        return {"files": reading_as_text(Reading.from_json(notes[READING_NOTE]))} if READING_NOTE in notes else {}
    except InvalidInputError:  # a newer version noted it
        return {"files": str(notes[READING_NOTE])}


def _calibrations_as_text(calibrations: Mapping[str, Calibration]) -> str:
    """Which modes are calibrated, and by what."""
    return "; ".join(
        f"mode {mode}, by {counted(each.n_judged, 'judged question')} and {each.n_made} parts of documents"
        for mode, each in calibrations.items()
    )


def _encoder_as_text(manifest: Manifest) -> str:
    """The encoder's class and settings, if the index notes them, and its fingerprint."""
    name, settings = manifest.encoder_info.get("name"), manifest.encoder_info.get("settings") or {}
    if name is None:
        return manifest.encoder
    listed = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{name}({listed}), {manifest.encoder}"


def tuning_as_text(tuning: Tuning) -> str:
    """The setting that ``optimize`` chose, and what it measured, in one line."""
    learned = tuning.set_encoder
    encoding = (
        "the index's first encoding" if learned is None else f"learned encoding of {learned.output_dimension} numbers"
    )
    text = f"{encoding}, {tuning.n_candidates} candidates for {tuning.k} hits"
    if {"recall", "milliseconds"} <= tuning.measured.keys():
        measured = tuning.measured
        margin = f" ± {measured['recall_margin']:.3f}" if "recall_margin" in measured else ""
        text += f": recall {measured['recall']:.3f}{margin}, {measured['milliseconds']:.1f} ms a search"
    if {"bytes_per_token", "bytes_per_token_before"} <= tuning.measured.keys():
        text += "; {bytes_per_token} bytes a token, before {bytes_per_token_before}".format_map(tuning.measured)
    if "hybrid_ndcg" in tuning.measured:
        ndcg, by_question = tuning.measured["hybrid_ndcg"], tuning.measured["hybrid_ndcg_by_question"]
        share = tuning.measured.get("lexical_weight")
        text += f"; BM25's share chosen for each question: nDCG {by_question:.3f}"
        if share is not None:
            text += f", now {share:g} for all: {ndcg:.3f}"
    return text


def size_as_text(n_bytes: float) -> str:
    """A number of bytes with a unit, such as "1.5 MB"."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    for unit in ("kB", "MB"):
        n_bytes /= 1000
        if n_bytes < 1000:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1000:.1f} GB"


def on_one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in text)

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera_core import TextPassage, TokenEmbeddings, split_text
from muvera_core.corpus.blocks import MARKUPS, Markup, find_blocks
from muvera_core.corpus.sentences import sentence_starts
from muvera_core.corpus.token_places import TokenPlaces
from muvera_core.encoders import BundledEncoder
from muvera_core.errors import InvalidInputError
from muvera_core.token_embeddings import IntArray

_TOKEN = re.compile(r"\w+|[^\w\s]")


class WordEncoder:
    """Has a token for each word and each sign, and two markers."""

    dimension = 1
    fingerprint = "words"

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        raise AssertionError("nothing is encoded to split a text")

    encode_queries = encode_documents

    def document_spans(self, text: str) -> IntArray:
        spans = [match.span() for match in _TOKEN.finditer(text)]
        return np.array([(0, 0), *spans, (len(text), len(text))], dtype=np.int64)

    query_spans = document_spans


class PlacelessEncoder(WordEncoder):
    """Does not say where its tokens are."""

    def document_spans(self, text: str) -> IntArray:
        return np.zeros((len(text.split()) + 1, 2), dtype=np.int64)


def split(
    text: str,
    max_tokens: int | None = 10,
    *,
    overlap: int = 0,
    markup: Markup = "plain",
    encoder: WordEncoder | None = None,
) -> list[TextPassage]:
    encoder = encoder or WordEncoder()
    return split_text(text, max_tokens=max_tokens, overlap=overlap, encoder=encoder, markup=markup)


def texts(text: str, max_tokens: int | None = 10, **settings: object) -> list[str]:
    return [passage.text for passage in split(text, max_tokens, **settings)]  # type: ignore[arg-type]


def n_tokens(text: str) -> int:
    return len(_TOKEN.findall(text))


# Laws

PIECES = st.sampled_from(
    ["owl", "hunts at night", ". ", "? ", "\n", "\n\n", "  ", "# ", "## Ears\n", "```\n", "~~~", "| a | b |\n",
     "|---|---|\n", "- ", "1. ", "e.g. ",
     "Fig. 3", "梟は夜に。", "====\n", "----\n", "\t", "\u200b", "🦉", "x" * 40, "\x0b", "\u2028"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=60).map("".join), st.integers(1, 30), st.integers(0, 15), st.sampled_from(MARKUPS))
def test_passages_lose_nothing_keep_their_order_and_have_few_enough_tokens(
    text: str, max_tokens: int, overlap: int, markup: Markup
) -> None:
    passages = split(text, max_tokens, overlap=min(overlap, max_tokens // 2), markup=markup)
    assert all(text[passage.start : passage.end] == passage.text for passage in passages)
    assert all(n_tokens(passage.text) <= max_tokens for passage in passages)
    assert all(passage.text and passage.text == passage.text.rstrip() for passage in passages)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(passages))
    covered = np.zeros(len(text), dtype=bool)
    for passage in passages:
        covered[passage.start : passage.end] = True
    left_out = "".join(character for character, is_in in zip(text, covered, strict=True) if not is_in)
    assert not left_out.replace("\u200b", "").strip()


@given(st.lists(PIECES, max_size=60).map("".join), st.integers(1, 30), st.sampled_from(MARKUPS))
def test_without_overlap_nothing_is_there_twice(text: str, max_tokens: int, markup: Markup) -> None:
    passages = split(text, max_tokens, markup=markup)
    assert all(a.end <= b.start for a, b in pairwise(passages))


@given(st.lists(PIECES, max_size=60).map("".join), st.sampled_from(MARKUPS))
def test_blocks_are_in_order_and_lose_nothing(text: str, markup: Markup) -> None:
    blocks = find_blocks(text, markup)
    assert all(a.end <= b.start for a, b in pairwise(blocks))
    assert all(block.start < block.end for block in blocks)
    left = list(text)
    for block in blocks:
        left[block.start : block.end] = " " * (block.end - block.start)
    assert not "".join(left).strip()


# Where texts are cut


def test_a_text_that_fits_is_one_passage() -> None:
    (passage,) = split("\n Owls hunt.\n\nThey hear. \n")
    assert passage == TextPassage("Owls hunt.\n\nThey hear.", 2, 24)


def test_passages_are_filled_with_whole_paragraphs() -> None:
    assert texts("One two three.\n\nFour five.\n\nSix seven eight nine ten eleven.", 8) == [
        "One two three.\n\nFour five.",
        "Six seven eight nine ten eleven.",
    ]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    assert texts("One two three. Four five six! Seven eight?", 8) == ["One two three. Four five six!", "Seven eight?"]


def test_a_long_sentence_is_cut_between_words_and_a_long_word_between_tokens() -> None:
    assert texts("one two three four five", 2) == ["one two", "three four", "five"]
    assert texts("a+b+c+d", 3) == ["a+b", "+c+", "d"]


@pytest.mark.parametrize(
    "sentence",
    [
        "See Fig. 3 and Dr. Owl.",
        "It weighs 2.5 kg, e.g. in May.",
        "J. R. Owl and z.B. Eulen.",
        "Ask U.S. experts at owl.org today.",
        "Wait... and see.",
    ],
)
def test_abbreviations_numbers_and_initials_end_no_sentence(sentence: str) -> None:
    text = f"{sentence} Next one."
    assert [text[start:] for start in sentence_starts(text, 0, len(text))] == ["Next one."]


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("Owls fly. They hunt.", "They hunt."),
        ("So did I. They hunt.", "They hunt."),
        ("“Owls fly.” They hunt.", "They hunt."),
        ("Owls fly?! They hunt.", "They hunt."),
        ("梟は夜に狩る。静かに飛ぶ。", "静かに飛ぶ。"),
        ("उल्लू उड़ता है। वह शिकार करता है", "वह शिकार करता है"),
    ],
)
def test_sentences_of_many_scripts_are_found(text: str, second: str) -> None:
    assert [text[start:] for start in sentence_starts(text, 0, len(text))] == [second]


def test_a_heading_stays_with_what_follows_and_starts_a_passage() -> None:
    text = "# Birds\n\nMany kinds of birds.\n\n## Owls\n\nThey hunt at night.\n\n## Herons\n\nThey stand still."
    passages = split(text, 12, markup="markdown")
    assert [(passage.text, passage.heading) for passage in passages] == [
        ("# Birds\n\nMany kinds of birds.", "Birds"),
        ("## Owls\n\nThey hunt at night.", "Birds > Owls"),
        ("## Herons\n\nThey stand still.", "Birds > Herons"),
    ]


def test_a_section_starts_a_passage_though_there_is_room_if_the_one_before_is_not_small() -> None:
    sections = [f"# {name}\n\nThey hunt at night." for name in ("Owls", "Bats", "Cats")]
    assert texts("\n\n".join(sections), 18, markup="markdown") == sections


def test_a_heading_is_not_parted_from_what_follows_if_that_does_not_fit() -> None:
    small, section = "So be it.", "# Owls\n\nThey hunt at night and fly so silently that no mouse can hear them."
    assert texts(f"{small}\n\n{section}", 20, markup="markdown") == [small, section]


def test_small_sections_share_a_passage_that_stands_under_what_they_share() -> None:
    text = "# Birds\n\n" + "\n\n".join(f"## Kind {i}\n\nFly." for i in range(7))
    passages = split(text, 28, markup="markdown")
    assert [(passage.text.count("##"), passage.heading) for passage in passages] == [
        (1, "Birds > Kind 0"),
        (2, "Birds"),
        (2, "Birds"),
        (2, "Birds"),
    ]


@pytest.mark.parametrize(
    ("markup", "text", "levels"),
    [
        ("markdown", "# A #\n\nB\n=\n\nC\n---\n\n### `d` [e](f) ###\n", [(1, "A"), (1, "B"), (2, "C"), (3, "d e")]),
        ("markdown", "```\n# no\n```\n\n- a\n---\n\n#no\n\n####### no\n", []),
        ("rst", "===\nA\n===\n\nB\n--\ntext\n\nC\n~~\n\nD\n--\n", [(1, "A"), (2, "B"), (3, "C"), (2, "D")]),
        ("rst", "=====  =====\nA      B\n=====  =====\n1      2\n=====  =====\n\nlong title\n--\n", []),
        ("plain", "# no\n\nno\n---\n", []),
    ],
)
def test_headings_are_found(markup: Markup, text: str, levels: list[tuple[int, str]]) -> None:
    assert [(block.level, block.title) for block in find_blocks(text, markup) if block.kind == "heading"] == levels


def test_code_and_tables_that_fit_are_not_cut() -> None:
    code, table = "```py\na = 1\n\nb = 2\n```", "| a | b |\n|---|---|\n| 1 | 2 |"
    text = f"Some words before it. More of them.\n\n{code}\n\nSome words between them. More of them.\n\n{table}"
    passages = texts(text, 26, markup="markdown")
    assert any(code in passage for passage in passages)
    assert any(table in passage for passage in passages)


def test_long_code_and_tables_are_cut_between_lines() -> None:
    code = "```\n" + "\n".join(f"owl_{i} = hunt(night, {i}). Twice." for i in range(9)) + "\n```"
    passages = texts(code, 30, markup="markdown")
    assert len(passages) > 2
    assert all(line in code.split("\n") for passage in passages for line in passage.split("\n"))


def test_items_of_a_long_list_are_not_cut_if_they_fit() -> None:
    items = [f"- Owl {i}. It hunts." for i in range(8)]
    assert all(passage.startswith("- ") and passage.endswith("It hunts.") for passage in texts("\n".join(items), 20))


def test_an_open_fence_at_the_end_is_code() -> None:
    assert [block.kind for block in find_blocks("text\n\n```\ncode\n\nmore", "markdown")] == ["text", "lines"]


# Overlap


def test_passages_repeat_whole_sentences() -> None:
    sentences = [f"Owl {i} hunts." for i in range(8)]
    passages = texts(" ".join(sentences), 12, overlap=5)
    assert passages == [
        " ".join(sentences[0:3]),
        " ".join(sentences[2:5]),
        " ".join(sentences[4:7]),
        " ".join(sentences[6:8]),
    ]


def test_a_section_repeats_nothing_of_the_one_before() -> None:
    text = "# A\n\nOne two. Three four. Five six.\n\n# B\n\nSeven eight. Nine ten. Eleven twelve."
    assert [p.text[:3] for p in split(text, 12, overlap=6, markup="markdown")] == ["# A", "# B"]


# Counting


def test_tokens_are_those_of_the_encoder() -> None:
    encoder = BundledEncoder()
    text = "Unbelievably, Strigiformes hunt crepuscularly; their asymmetrical ears localise prey. " * 40
    for passage in split_text(text, max_tokens=50, encoder=encoder):
        spans = encoder.document_spans(passage.text)
        assert 25 < int((spans[:, 1] > spans[:, 0]).sum()) <= 50


def test_without_an_encoder_the_bundled_one_counts() -> None:
    text = "Owls hunt at night. " * 40
    assert split_text(text, max_tokens=50) == split_text(text, max_tokens=50, encoder=BundledEncoder())


def test_an_encoder_that_knows_no_places_is_asked_once() -> None:
    class Asked(PlacelessEncoder):
        n = 0

        def document_spans(self, text: str) -> IntArray:
            self.n += 1
            return super().document_spans(text)

    encoder = Asked()
    text = "Owls hunt at night. " * 2_000
    passages = split(text, 100, encoder=encoder)
    assert encoder.n == 1
    assert all(8 < len(passage.text.split()) <= 100 for passage in passages)


def test_a_long_text_is_tokenized_in_parts_as_if_it_were_whole() -> None:
    text = "Owls hunt at night, silently. " * 2_000
    assert TokenPlaces.of(text, WordEncoder()).starts == [match.start() for match in _TOKEN.finditer(text)]


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_what_an_encoder_cuts_off_is_counted_too(limit: int) -> None:
    class Limited(WordEncoder):
        def document_spans(self, text: str) -> IntArray:
            return super().document_spans(text)[: limit + 1]

    text = "Owls hunt at night, silently. " * 200
    assert TokenPlaces.of(text, Limited()).starts == TokenPlaces.of(text, WordEncoder()).starts


# Edges


@pytest.mark.parametrize("text", ["", " \n\n", "\u200b\u200b"])
@pytest.mark.parametrize("max_tokens", [None, 5])
def test_a_text_without_visible_characters_has_no_passages(text: str, max_tokens: int | None) -> None:
    assert texts(text, max_tokens) == []


def test_without_a_limit_a_text_is_one_passage() -> None:
    text = "Owls hunt at night.\n\n" * 1_000
    assert texts(text, None) == [text.strip()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": 10, "overlap": 6}, "overlap must be at most half"),
        ({"markup": "html"}, "markup must be one of 'plain', 'markdown', 'rst', 'code', got 'html'"),
        ({"encoder": object()}, "encoder must be a TokenEncoder"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        split_text("Owls hunt at night.", **settings)  # type: ignore[arg-type]


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="surrogate"):
        split_text("owl \ud83e")

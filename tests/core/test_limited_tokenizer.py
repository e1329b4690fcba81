"""Reading only the beginning of a text gives the same tokens as reading all of it."""

from __future__ import annotations

import random

import pytest
from counting_tokenizer import CountingTokenizer

from muvera_core.encoders.packaged.bundled import ASSETS
from muvera_core.encoders.text.tokenizing import LimitedTokenizer, longest_reading

LIMIT = 40
WORDS = ["owl", "unbelievably", "Zürich", "e\u0323\u0301", "don't", "--", "北京", "猫龘", "🦉", "नमस्ते", "x" * 150]


@pytest.fixture(scope="module")
def tokenizer() -> CountingTokenizer:
    return CountingTokenizer(ASSETS / "tokenizer.json")


def random_text(seed: int) -> str:
    generator = random.Random(seed)
    between = ["", " ", " ", " ", "\n\n", "  \t", "\u200b", "\u3000", ", "]
    n_words = generator.choice([LIMIT // 2, LIMIT, 400, 4000])
    return "".join(generator.choice(WORDS) + generator.choice(between) for _ in range(n_words))


TEXTS = [
    *("owl " * n for n in (LIMIT - 1, LIMIT, LIMIT + 1, 5000)),
    "owl" + " " * 3000 + "hunts" + "\n" * 900 + "mice",
    "owl " * (LIMIT - 1) + " " * 3000 + "mice eat",
    "owl " * LIMIT + " " * 9000,
    "北京" * 5000,
    "ab\u0301c" * 1000,
    "!" * 4000,
    "owl,mice;" * 900,
    "xy" * 70 + " " + "owl " * 900,
    "고양이가" * 900,
    *(random_text(seed) for seed in range(12)),
]


@pytest.mark.parametrize("splits_unknown", [True, False])
def test_tokens_are_those_of_the_whole_text(tokenizer: CountingTokenizer, splits_unknown: bool) -> None:
    unknown = tokenizer.tokenizer.token_to_id("[UNK]")
    first_tokens = LimitedTokenizer(tokenizer, unknown, splits_unknown=splits_unknown)
    for text, found in zip(TEXTS, first_tokens(TEXTS, LIMIT), strict=True):
        encoding = tokenizer.tokenizer.encode(text, add_special_tokens=False)
        n = len(found.ids)
        assert found.ids == encoding.ids[:n]
        assert found.spans == encoding.offsets[:n]
        n_tokens = len(found.token_spans(0, n)) if splits_unknown else n
        if found.end < len(text):
            assert n_tokens == LIMIT
        else:
            assert n == len(encoding.ids)
            assert n_tokens <= LIMIT


def test_the_work_depends_on_the_limit_not_on_the_text(tokenizer: CountingTokenizer) -> None:
    first_tokens = LimitedTokenizer(tokenizer, None, splits_unknown=True)
    for text in ("owl " * 100_000, "x" * 400_000, "ไม่มีช่องว่าง" * 30_000, " " * 400_000 + "owl"):
        before = tokenizer.n_read
        [found] = first_tokens([text], LIMIT)
        assert tokenizer.n_read - before < 2 * longest_reading(LIMIT)
        assert 0 < found.end < len(text)


def test_whitespace_after_the_last_token_is_not_left_out(tokenizer: CountingTokenizer) -> None:
    text = "owl " * LIMIT + " \n" * longest_reading(LIMIT)
    [found] = LimitedTokenizer(tokenizer, None, splits_unknown=True)([text], LIMIT)
    assert (len(found.ids), found.end) == (LIMIT, len(text))

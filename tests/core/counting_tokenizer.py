from __future__ import annotations

from pathlib import Path

from tokenizers import Encoding, Tokenizer


class CountingTokenizer:
    """A tokenizer that notes how many characters it reads."""

    def __init__(self, file: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(file))
        self.model = self.tokenizer.model
        self.n_read = 0

    def encode_batch(self, texts: list[str], add_special_tokens: bool) -> list[Encoding]:
        self.n_read += sum(map(len, texts))
        encodings: list[Encoding] = self.tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        return encodings

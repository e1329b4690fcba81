"""What each character of a text is to lexical search: a part of a word, a separator, or nothing."""

from __future__ import annotations

import re
import unicodedata

# Raised when the rules in this room change, so that the same text gives other words.
CHARACTER_RULES = 1

# Soft hyphen, zero-width non-joiner and joiner, word joiner, byte order mark; the Arabic tatweel only stretches a word.
_IGNORED = frozenset(map(ord, "\u00ad\u200c\u200d\u2060\ufeff\u0640"))
# Points and vowel signs that Hebrew and Arabic texts mostly leave out.
_LEFT_OUT = frozenset([*range(0x0591, 0x05BE), 0x05BF, 0x05C1, 0x05C2, *range(0x064B, 0x0653), 0x0670])
_ACCENTED = ("LATIN", "GREEK", "CYRILLIC")
# Scripts that are written without spaces between words: Thai, Lao, Myanmar, Khmer, Kana, Bopomofo, Han.
_SPACELESS = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
SPACELESS = re.compile(f"[{_SPACELESS}]+")
# Runs of a text without separators: of scripts without spaces, or of others.
RUNS = re.compile(rf"[{_SPACELESS}]+|[^\s{_SPACELESS}]+")


class _Separators(dict[int, int | str | None]):
    """A table for ``str.translate``: a separator becomes a space. It learns each character when it first occurs."""

    def __missing__(self, code: int) -> int | str | None:
        if code in _IGNORED or code in _LEFT_OUT:
            found: int | str | None = None
        else:
            found = code if unicodedata.category(chr(code))[0] in "LNM" else " "
        self[code] = found
        return found


class _Accents(dict[int, int | str]):
    """A table for ``str.translate``: a Latin, Greek or Cyrillic letter loses its accents."""

    def __missing__(self, code: int) -> int | str:
        base = unicodedata.normalize("NFD", chr(code))[0]
        found = base if unicodedata.name(base, "").startswith(_ACCENTED) else code
        self[code] = found
        return found


_separators, _accents = _Separators(), _Accents()
# Combining marks of Latin, Greek and Cyrillic letters that no single character has.
_COMBINING = re.compile("[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+")


def folded(text: str) -> str:
    """A text in lower case and in one form of Unicode (NFKC), with a space for each separator."""
    if text.isascii():
        return text.lower().translate(_separators)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_separators)


def without_accents(word: str) -> str:
    """A folded word without the accents of its Latin, Greek and Cyrillic letters. It may consist of marks only."""
    return word if word.isascii() else _COMBINING.sub("", word).translate(_accents) or word

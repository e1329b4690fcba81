"""Checks of what users and encoders pass in.

A function that returns something returns the checked value. If the value is invalid, every function raises
InvalidInputError, or EncoderError if an encoder returned it; the message says what was got and what was expected.
"""

from __future__ import annotations

import os
import reprlib
import unicodedata
import uuid
from collections.abc import Iterable, KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from muvera_core.errors import DimensionMismatchError, EncoderError, InvalidInputError
from muvera_core.token_embeddings import FloatArray, TokenEmbeddings

# Unicode's categories of characters that show nothing: separators, controls, formats, surrogates, unassigned ones.
_INVISIBLE = frozenset(["Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Cn"])
_Choice = TypeVar("_Choice", bound=str)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def shown(value: object) -> str:
    """Format a value for an error message: short, whatever the value is and whatever its ``repr`` does."""
    try:
        return _SHORT.repr(value)
    except Exception:  # the value's own code fails, or an int has too many digits
        return f"<{type(value).__name__}>"


def counted(n: int, noun: str) -> str:
    """A number with its noun, such as "1 document" or "2 documents"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def require_count(name: str, value: object, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``. NumPy integers are accepted."""
    # In NumPy a timedelta64 is an integer, too.
    if not isinstance(value, (int, np.integer)) or isinstance(value, (bool, np.timedelta64)):
        raise InvalidInputError(f"{name} must be a whole number, got {shown(value)}")
    if value < minimum:
        raise InvalidInputError(f"{name} must be at least {minimum}, got {shown(value)}")
    return int(value)


def require_share(name: str, value: object) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
        raise InvalidInputError(f"{name} must be a number between 0 and 1, got {shown(value)}")
    return float(value)


def require_choice(name: str, value: _Choice, choices: Sequence[_Choice]) -> _Choice:
    """One of several names."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidInputError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
    return value


def require_interval(name: str, value: object) -> float | None:
    """A number of seconds of at least 0, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)) or not value >= 0:
        raise InvalidInputError(f"{name} must be a number of seconds of at least 0, or None, got {shown(value)}")
    return float(value)


def require_unicode(name: str, value: object) -> str:
    """A string that UTF-8 can encode. A subclass is converted to a plain ``str``."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string, got {type(value).__name__}")
    text = str.__str__(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds half of a surrogate pair at character {error.start}, which is not Unicode text: "
            "decode it with errors='replace'"
        ) from None
    return text


def has_visible_text(text: str) -> bool:
    """Whether a text has a visible character: one that is no whitespace, control, format or unassigned character."""
    return not all(unicodedata.category(character) in _INVISIBLE for character in text.strip())


def repaired(text: str) -> str:
    """The text as a plain ``str`` that UTF-8 can encode.

    Two halves of a surrogate pair become their character. U+FFFD takes the place of a half without the other one.
    """
    plain = str.__str__(text)
    try:
        plain.encode("utf-8")
    except UnicodeEncodeError:
        return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return plain


def require_text(name: str, value: object) -> str:
    """A string that UTF-8 can encode and that is not blank."""
    text = require_unicode(name, value)
    if not text.strip():
        raise InvalidInputError(f"{name} is empty, so nothing can match it: leave it out")
    return text


def require_sequence(name: str, values: object) -> Sequence[Any]:
    """A sequence that is not a string."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidInputError(f"{name} must be a list, got {type(values).__name__}: for a single item give [item]")
    return values


def require_path(name: str, value: object) -> Path:
    """An absolute path that the file system can hold, from a string or ``os.PathLike``."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path:
        raise InvalidInputError(f"{name} must be a path, as a string or pathlib.Path, got {shown(value)}")
    try:
        impossible = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise InvalidInputError(f"{name} has characters that a file name cannot have: got {shown(path)}")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidInputError(f"{name} names a home folder that is not known ({error}): got {shown(path)}") from None


def require_paths(name: str, value: object) -> list[Path]:
    """One or more paths as ``require_path`` gives them, from one path or a sequence of paths."""
    single = isinstance(value, str | os.PathLike)
    given = [value] if single else value
    if not isinstance(given, Sequence) or not given:
        raise InvalidInputError(f"{name} must be one or more paths, got {shown(value)}")
    return [require_path(name if single else f"{name}[{i}]", path) for i, path in enumerate(given)]


def require_known_names(
    owner: str, given: Iterable[str], known: Iterable[str], aliases: Mapping[str, str] | None = None
) -> None:
    """Refuse names of arguments that nobody reads, and suggest the right one.

    Args:
        owner: the class or call that was given the names.
        given: the names.
        known: the names that it knows.
        aliases: for names from elsewhere, what to use here: one of ``known``, or a piece of advice with a space in it.
    """
    known, aliases = sorted(known), aliases or {}
    for name in given:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1)
        advice = aliases.get(name) or (near[0] if near else None)
        if advice is None:
            suggestion = f"expected {'one of ' * (len(known) > 1)}{', '.join(known)}" if known else "leave it out"
        else:
            suggestion = advice if " " in advice else f"did you mean {advice!r}?"
        raise InvalidInputError(f"{owner} does not know {shown(name)}: {suggestion}")


def require_strings(name: str, values: object) -> list[str]:
    """Strings from a list, or from any other iterable that is not a string, as a list.

    Halves of surrogate pairs, which are not Unicode text, become U+FFFD.
    """
    return [repaired(require_string(f"{name}[{i}]", value)) for i, value in enumerate(require_iterable(name, values))]


def require_string(name: str, value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string, got {type(value).__name__}")
    return value


def require_iterable(name: str, values: object) -> list[Any]:
    """The items of a list, a generator or another iterable in order. Strings, mappings and sets are refused."""
    is_unordered = isinstance(values, AbstractSet) and not isinstance(values, KeysView)
    if isinstance(values, (str, bytes, Mapping)) or is_unordered or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} must be a list, got {type(values).__name__}: for a single item give [item]")
    return list(values)


def require_texts(name: str, values: object) -> list[str]:
    """A sequence of texts that are not blank, as a list."""
    return [require_text(f"{name}[{i}]", value) for i, value in enumerate(require_sequence(name, values))]


def require_ids(ids: Sequence[str] | None, n: int) -> list[str]:
    """``n`` distinct ids; random ones if ``ids`` is None."""
    if ids is None:
        return [uuid.uuid4().hex for _ in range(n)]
    checked = require_texts("ids", ids)
    require_length("ids", checked, n)
    seen: set[str] = set()
    for id in checked:
        if id in seen:
            raise InvalidInputError(f"id {shown(id)} occurs more than once in this call: ids must be distinct")
        seen.add(id)
    return checked


def require_length(name: str, values: Sequence[object], n: int, owner: str = "document") -> None:
    """Check that there are ``n`` values: one per ``owner``."""
    if len(values) != n:
        raise InvalidInputError(f"{name} has length {len(values)}, expected {n}: give one per {owner}, or none at all")


def require_query_tokens(query: npt.ArrayLike | TokenEmbeddings, dimension: int) -> FloatArray:
    """The token vectors of one query, shape (tokens, dimension)."""
    embeddings = query if isinstance(query, TokenEmbeddings) else TokenEmbeddings.from_list([query])
    if len(embeddings) != 1:
        raise InvalidInputError(f"expected the token embeddings of one query, got those of {len(embeddings)} texts")
    return _require_query_dimension(embeddings, dimension)[0]


def require_queries(queries: object, dimension: int) -> list[FloatArray]:
    """The token vectors of several queries, shape (tokens, dimension) each."""
    if isinstance(queries, TokenEmbeddings):
        return list(_require_query_dimension(queries, dimension))
    return [require_query_tokens(query, dimension) for query in require_sequence("query_tokens", queries)]


def _require_query_dimension(embeddings: TokenEmbeddings, dimension: int) -> TokenEmbeddings:
    if len(embeddings) and embeddings.dimension != dimension:
        raise DimensionMismatchError(
            f"got {embeddings.dimension}-d query vectors, but the index holds {dimension}-d ones: "
            "encode the query with the index's model"
        )
    return embeddings


def require_encoded(embeddings: TokenEmbeddings, n: int, dimension: int) -> TokenEmbeddings:
    """The token embeddings that an encoder returned for ``n`` texts. Raises EncoderError if they are invalid."""
    if not isinstance(embeddings, TokenEmbeddings):
        raise EncoderError(f"the encoder returned {type(embeddings).__name__}, expected TokenEmbeddings")
    if len(embeddings) != n or embeddings.dimension != dimension:
        raise EncoderError(
            f"the encoder returned {embeddings.dimension}-d vectors of {counted(len(embeddings), 'text')}, "
            f"expected {dimension}-d vectors of {counted(n, 'text')}: correct the encoder"
        )
    return embeddings


def require_mapping(name: str, value: object) -> dict[Any, Any]:
    """A copy of a mapping, as a dictionary."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{name} must be a mapping, got {type(value).__name__}")
    try:
        return dict(value)
    except Exception as error:  # a foreign mapping class can raise anything
        raise InvalidInputError(f"{name} cannot be read: {type(error).__name__}: {shown(str(error))}") from error

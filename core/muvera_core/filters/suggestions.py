"""Which operator of the filter language somebody meant who wrote another name."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache

_MEANT: dict[str, tuple[str, ...]] = {
    "$eq": ("eq", "=", "==", "equal", "equals", "is"),
    "$ne": ("ne", "!=", "<>", "neq", "notequal", "notequals", "isnot"),
    "$gt": ("gt", ">", "greater", "greaterthan", "after"),
    "$gte": ("gte", ">=", "ge", "greaterequal", "greaterthanorequal", "between"),
    "$lt": ("lt", "<", "less", "lessthan", "before"),
    "$lte": ("lte", "<=", "le", "lessequal", "lessthanorequal"),
    "$in": ("in", "any", "anyof", "oneof", "isin"),
    "$nin": ("nin", "notin", "noneof"),
    "$all": ("all", "allof", "containsall"),
    "$exists": ("exists", "exist", "isset"),
    "$empty": ("empty", "isempty", "isnull", "null"),
    "$like": ("like", "regex", "regexp", "match", "matches", "glob", "startswith", "endswith", "prefix", "suffix"),
    "$ilike": ("ilike", "imatch"),
    "$contains": ("contains", "contain", "includes", "include", "textmatch", "substring"),
    "$icontains": ("icontains", "textmatchinsensitive"),
    "$and": ("and", "&&", "&"),
    "$or": ("or", "||", "|"),
    "$nor": ("nor",),
    "$not": ("not", "!"),
}
_BY_NAME = {name: operator for operator, names in _MEANT.items() for name in names}
_LONGEST_NAME = 40


@lru_cache
def meant_operator(name: str, likeness: float = 0.8) -> str | None:
    """The operator that ``name``, with or without "$", probably means, if any.

    Args:
        name: what somebody wrote.
        likeness: how much a misspelt name must have in common with the right one, from 0 to 1.
    """
    if len(name) > _LONGEST_NAME:
        return None
    plain = name.removeprefix("$").casefold().translate({ord(character): None for character in "_- "})
    if plain in _BY_NAME or likeness == 1:
        return _BY_NAME.get(plain)
    near = get_close_matches(plain, _BY_NAME, 1, likeness)
    return _BY_NAME[near[0]] if near else None

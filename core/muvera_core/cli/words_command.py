"""The command ``muvera words``, which makes, changes or removes the word index of an index."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click

from muvera_core.cli.options import INDEX
from muvera_core.cli.word_options import WordOptions, word_options, words_as_text
from muvera_core.collection import Writer, open_collection
from muvera_core.errors import InvalidInputError
from muvera_core.lexical import LexicalConfig, Tokenizer
from muvera_core.storage import require_fts5


@click.command()
@INDEX
@word_options
@click.option("--remove", is_flag=True, help="Remove the word index. Searches in modes lexical and hybrid need one.")
def words(
    folder: Path, tokenizer: Tokenizer | None, language: str | None, search_fields: tuple[str, ...], remove: bool
) -> None:
    """Make the word index of INDEX anew, for searches in modes lexical and hybrid.

    Options that are left out stay as they are. Nothing is encoded again. For example:

    muvera words notes.muvera --language german --search-field title
    """
    options = WordOptions(tokenizer, language, search_fields)
    if remove and options.given:
        raise InvalidInputError(f"--remove leaves nothing to change: leave out {' and '.join(options.given)}")
    # The words are made of stored texts, so no encoder is needed.
    with closing(open_collection(folder.absolute(), show_progress=sys.stderr.isatty())) as collection:
        settings = None
        if not remove:
            require_fts5()
            settings = options.change(collection.manifest.lexical or LexicalConfig())
        Writer(collection).set_lexical(settings)
    click.echo(f"word index: {words_as_text(settings)}")

"""The program ``muvera`` and its list of commands.

``index_command.py`` builds and updates indexes (``index_opening.py`` opens them), ``import_command.py`` takes over
documents from other systems, ``search_commands.py`` searches, measures and optimizes, ``words_command.py`` changes the
word index, ``calibrate_command.py`` learns what scores mean, ``maintenance_commands.py`` inspects and repairs,
``export_command.py`` exports models, ``serve_command.py`` answers over HTTP. ``options.py``, ``word_options.py`` and
``reading_options.py`` have the options that they share. ``plugins.py`` finds commands that other distributions bring.
"""

from __future__ import annotations

import click

from muvera_core.cli.calibrate_command import calibrate
from muvera_core.cli.export_command import export_onnx
from muvera_core.cli.group import CommandGroup
from muvera_core.cli.import_command import import_
from muvera_core.cli.index_command import index
from muvera_core.cli.maintenance_commands import check, compact, info, repair
from muvera_core.cli.search_commands import evaluate, optimize, search
from muvera_core.cli.serve_command import serve
from muvera_core.cli.words_command import words


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="muvera-core", prog_name="muvera")
def main() -> None:
    """Late-interaction search: index documents, search them, and maintain the index."""


_COMMANDS = (
    index,
    import_,
    search,
    words,
    calibrate,
    evaluate,
    optimize,
    serve,
    info,
    check,
    repair,
    compact,
    export_onnx,
)
for _command in _COMMANDS:
    main.add_command(_command)

"""Commands that other distributions bring, by entry points of the group ``muvera.commands``.

A distribution names a ``click.Command`` there. It is imported when the command is called, so a broken one disturbs no
other command.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import click

from muvera_core.cli.output import on_one_line

GROUP = "muvera.commands"
# Commands of distributions that may not be installed, and the extra that installs each.
_EXTRAS = {"chat": ("chat", "Open a chatbot about the documents of INDEX in the browser.")}


def plugin_names() -> list[str]:
    """The names of commands that others bring, or could bring."""
    return sorted({*_EXTRAS, *(found.name for found in entry_points(group=GROUP))})


def load_plugin(name: str) -> click.Command | None:
    """The command of this name. One that cannot be used says why, when it is called. None if there is none."""
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        return _missing(name) if name in _EXTRAS else None
    first = found[0]
    try:
        command = first.load()
    except Exception as error:  # somebody else's module can raise anything
        return _broken(first, f"{type(error).__name__}: {error}")
    if not isinstance(command, click.Command):
        return _broken(first, f"{first.value} is no click.Command")
    return command


def describe_plugin(name: str) -> click.Command:
    """A command of this name with a line of help, for the list of commands. Nothing is imported for it."""
    origins = [found.dist.name for found in entry_points(group=GROUP, name=name) if found.dist is not None]
    if name in _EXTRAS:
        help = _EXTRAS[name][1] + ("" if origins else f" (pip install 'muvera-core[{_EXTRAS[name][0]}]')")
    else:
        help = f"From {', '.join(origins) or 'elsewhere'}."
    return click.Command(name, help=help, short_help=help)


def _missing(name: str) -> click.Command:
    extra, help = _EXTRAS[name]
    return _Unusable(name, f"muvera {name} is not installed: pip install 'muvera-core[{extra}]'", help)


def _broken(found: EntryPoint, problem: str) -> click.Command:
    origin = f" of {found.dist.name}" if found.dist is not None else ""
    message = f"the command {found.name}{origin} cannot be loaded ({problem}): install it again, or remove it"
    return _Unusable(found.name, message, message)


class _Unusable(click.Command):
    """A command that only says why it cannot be used, whatever its arguments."""

    ignore_unknown_options = allow_extra_args = True

    def __init__(self, name: str, message: str, help: str) -> None:
        super().__init__(name, help=help)
        self._message = on_one_line(message)

    def invoke(self, ctx: click.Context) -> None:
        """End the program with one line on standard error."""
        raise click.ClickException(self._message)

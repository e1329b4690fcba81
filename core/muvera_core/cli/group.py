"""How the command line reports errors, warnings and interruptions: each as one line on standard error."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from tqdm import tqdm

from muvera_core.cli.output import on_one_line
from muvera_core.cli.plugins import describe_plugin, load_plugin, plugin_names
from muvera_core.errors import (
    CorruptIndexError,
    DeviceFallbackWarning,
    EncoderMismatchError,
    FilesGoneError,
    MuveraError,
    NotAnIndexError,
    NothingToOptimizeWarning,
    SkippedImageWarning,
    SkippedTextWarning,
    StageOneNotSavedWarning,
    TruncatedTextWarning,
    UnknownTextWarning,
    UnsupportedFormatError,
)

_BROKEN_PIPE = 141  # 128 + SIGPIPE
_ENCODER = (
    "--encoder names the encoder: 'multilingual', or the folder of a model of sentence-transformers, PyLate or "
    "ColBERT, or in ONNX format"
)
_ADVICE: dict[type[MuveraError], str] = {
    NotAnIndexError: "`muvera index INDEX PATH...` creates one",
    CorruptIndexError: "`muvera check INDEX` lists the damage and `muvera repair INDEX` repairs it",
    FilesGoneError: "that is --allow-empty",
    EncoderMismatchError: f"{_ENCODER}, and `muvera index NEW PATH...` indexes files again",
    UnsupportedFormatError: "`muvera compact INDEX` converts an index of an older format",
}
# Our own warnings, with what the command line can do about them.
_WARNINGS: dict[type[Warning], str | None] = {
    DeviceFallbackWarning: None,
    NothingToOptimizeWarning: None,
    SkippedImageWarning: None,
    SkippedTextWarning: None,
    StageOneNotSavedWarning: None,
    TruncatedTextWarning: "--max-tokens splits texts into passages",
    UnknownTextWarning: _ENCODER,
}


class Failure(click.ClickException):
    """Ends the program with one line on standard error."""

    def __init__(self, message: str) -> None:
        super().__init__(on_one_line(message))


class Interrupted(Failure):
    """Ends the program after Ctrl-C."""

    exit_code = 130  # 128 + SIGINT, as shells report it


class CommandGroup(click.Group):
    """Commands, also of other distributions, whose errors, warnings and interruptions need no traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *plugin_names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name. Our own come first."""
        return super().get_command(ctx, cmd_name) or load_plugin(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without loading those of other distributions."""
        others = {name: describe_plugin(name) for name in plugin_names()}
        listing = click.Group(commands={**others, **self.commands})
        listing.format_commands(ctx, formatter)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        # In every locale: JSON is UTF-8 by definition, and text that cannot be shown must not end the program.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            with _warnings_on_one_line():
                return super().invoke(ctx)
        except MuveraError as error:
            advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), None)
            known = advice is None or ctx.invoked_subcommand == "repair"
            raise Failure(str(error) if known else f"{error}. On the command line, {advice}") from error
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except BrokenPipeError:
            # The reader has gone. Without this, Python reports the error again when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_BROKEN_PIPE)


def say(message: str) -> None:
    """Write a line to standard error, above the progress bar if there is one."""
    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(on_one_line(message), err=True)


@contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Show muvera's own warnings in one line, every time that they occur."""
    with warnings.catch_warnings():
        show_other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *details: Any, **more: Any) -> None:
            if issubclass(category, tuple(_WARNINGS)):
                advice = next(text for kind, text in _WARNINGS.items() if issubclass(category, kind))
                say(f"Warning: {message}" + (f". On the command line, {advice}" if advice else ""))
            else:
                show_other(message, category, *details, **more)

        for category in _WARNINGS:
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield

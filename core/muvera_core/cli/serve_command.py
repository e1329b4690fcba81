"""The command ``muvera serve``, which answers requests over HTTP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from muvera_core.cli.group import say
from muvera_core.cli.options import DEVICE, ENCODER, ENCODER_DEVICE, INDEX
from muvera_core.errors import InvalidInputError, NotAnIndexError
from muvera_core.serving import ServiceSettings, log_to_stderr
from muvera_core.serving import serve as serve_index
from muvera_core.storage import CLUSTER_NAME, holds_index

_TOKEN = "MUVERA_TOKEN"
_MIB = 1 << 20
_DEFAULTS = ServiceSettings()


@click.command()
@INDEX
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Name or address of this machine to listen on. Can be given several times.  [default: 127.0.0.1]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="Port to listen on. 0 takes a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of processes that answer requests. From 2 on, one more process writes.",
)
@click.option("--read-only", is_flag=True, help="Refuse changes. Another process may then write to INDEX.")
@click.option("--create", is_flag=True, help="Make INDEX if there is none.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"File with the token that requests have to send, or several, a line each. Without it, the environment "
    f"variable {_TOKEN} has the token.",
)
@click.option("--no-token", is_flag=True, help="Let in everybody who can reach the HOST, also from other machines.")
@click.option(
    "--max-body",
    type=click.IntRange(min=1),
    default=_DEFAULTS.max_body_bytes // _MIB,
    show_default=True,
    metavar="MIB",
    help="Largest body of a request.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(min=0),
    default=_DEFAULTS.max_waiting,
    show_default=True,
    metavar="N",
    help="Requests that may wait in each worker. More are told to try again.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    show_default="one more than its share of the cores",
    help="Requests that each worker answers at the same time.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULTS.request_timeout,
    show_default=True,
    metavar="SECONDS",
    help="Time that a request may take.",
)
@click.option(
    "--write-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULTS.write_timeout,
    show_default=True,
    metavar="SECONDS",
    help="Time that a change of INDEX may take.",
)
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that running requests get to end when the service stops.",
)
@click.option("--no-docs", is_flag=True, help="Show no page about the calls on /docs.")
@click.option("--open-docs", is_flag=True, help="Show that page without a token.")
@click.option("--open-metrics", is_flag=True, help="Show the numbers on /metrics without a token.")
@click.option("--access-log", is_flag=True, help="Log every request.")
@DEVICE
@ENCODER
@ENCODER_DEVICE
def serve(
    folder: Path,
    hosts: tuple[str, ...],
    port: int,
    workers: int,
    read_only: bool,
    create: bool,
    token_file: Path | None,
    no_token: bool,
    max_body: int,
    max_waiting: int,
    threads: int | None,
    timeout: float,
    write_timeout: float,
    stop_timeout: float,
    no_docs: bool,
    open_docs: bool,
    open_metrics: bool,
    access_log: bool,
    device: str,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Answer searches and changes of INDEX over HTTP.

    muvera_core.RemoteMuveraIndex calls the service from Python. Ctrl-C stops it. For example:

    muvera serve notes.muvera

    muvera serve notes.muvera --workers 4 --host 0.0.0.0 --token-file token.txt
    """
    if (folder / CLUSTER_NAME).exists():
        raise InvalidInputError(f"{folder} holds a sharded index, which Ray Serve serves: see docs/cluster.md")
    if not create and not holds_index(folder.absolute()):
        raise NotAnIndexError(f"{folder} holds no index; --create makes an empty one")
    settings = ServiceSettings(
        tokens=_read_tokens(token_file),
        max_body_bytes=max_body * _MIB,
        max_waiting=max_waiting,
        n_threads=threads,
        request_timeout=timeout,
        write_timeout=write_timeout,
        docs=not no_docs,
        docs_need_token=not open_docs,
        metrics_need_token=not open_metrics,
    )
    if no_token and settings.tokens:
        raise InvalidInputError(f"a token is set by --token-file or {_TOKEN}: leave it or --no-token out")

    def announce(urls: Sequence[str]) -> None:
        for url in urls:
            click.echo(f"{folder} is served at {url}" + ("" if no_docs else f" (calls: {url}/docs)"))
        click.echo("Ctrl-C stops the service.")

    log_to_stderr()
    serve_index(
        folder,
        settings,
        hosts=hosts or ("127.0.0.1",),
        port=port,
        workers=workers,
        read_only=read_only,
        create=create,
        encoder=None if checkpoint is None else str(checkpoint),
        encoder_device=encoder_device,
        device=device,
        without_token=no_token,
        stop_timeout=stop_timeout,
        access_log=access_log,
        on_ready=announce,
    )
    say("stopped")


def _read_tokens(file: Path | None) -> list[str]:
    if file is None:
        token = os.environ.get(_TOKEN, "").strip()
        return [token] if token else []
    try:
        tokens = [line.strip() for line in file.read_text("ascii").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"--token-file {file} cannot be read as ASCII text: {error}") from None
    if not tokens:
        raise InvalidInputError(f"--token-file {file} has no token: make one with `openssl rand -hex 32`")
    return tokens

"""The command ``muvera chat``, which opens a chat in the browser over documents."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import click

from muvera_chat.opening import Opened, open_chat
from muvera_core.cli import DEVICE, ENCODER, ENCODER_DEVICE, load_encoder, progress_bar, say
from muvera_core.errors import InvalidInputError
from muvera_core.serving import log_to_stderr

_PASSWORD = "MUVERA_CHAT_PASSWORD"
_MIB = 1 << 20


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--index",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder of the index. It is made if there is none.  [default: the first PATH's name with .muvera, beside "
    "it; documents.muvera without a PATH]",
)
@click.option(
    "--model",
    metavar="PROVIDER:MODEL",
    help="The language model that writes answers, such as ollama:llama3.2. Without one, sentences are quoted.",
)
@click.option("--base-url", metavar="URL", help="Address of the model's service, if it is not the provider's own.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Name or address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    metavar="N",
    help="Port to listen on. 0 takes a free one.",
)
@click.option("--read-only", is_flag=True, help="Let nobody add or remove documents. Another process may then write.")
@click.option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="MIB",
    help="Largest file that can be uploaded.",
)
@click.option("--title", default="Ask your documents", show_default=True, metavar="TEXT", help="The page's title.")
@click.option("--open/--no-open", "opens", default=None, help="Open the page in a browser.  [default: on a desktop]")
@DEVICE
@ENCODER
@ENCODER_DEVICE
def chat(
    paths: tuple[Path, ...],
    folder: Path | None,
    model: str | None,
    base_url: str | None,
    host: str,
    port: int,
    read_only: bool,
    max_upload: int,
    title: str,
    opens: bool | None,
    device: str,
    checkpoint: Path | None,
    encoder_device: str | None,
) -> None:
    """Ask the documents in PATHs, in the browser.

    PATHs are files and folders, which are indexed first, or the folder of an index. Answers cite passages, and show
    which of their words matched the question. Ctrl-C stops the chat. For example:

    muvera chat notes/

    muvera chat notes.muvera --model ollama:llama3.2
    """
    from muvera_chat.models import load_model

    if base_url is not None and model is None:
        raise InvalidInputError("--base-url is for a --model: name one, or leave --base-url out")
    writer = None if model is None else load_model(model, base_url=base_url)
    with open_chat(
        paths,
        folder,
        encoder_of=lambda index: load_encoder(checkpoint, index, encoder_device),
        device=device,
        read_only=read_only,
        max_file_bytes=max_upload * _MIB,
        progress_bar=progress_bar,
        say=say,
    ) as opened:
        _serve(opened, writer, title, host, port, max_upload * _MIB, opens)
    say("stopped")


def _serve(
    opened: Opened, writer: object, title: str, host: str, port: int, max_file_bytes: int, opens: bool | None
) -> None:
    say("Starting …")
    from muvera_chat.answering import Answerer
    from muvera_chat.ui import make_page, serve

    def announce(url: str) -> None:
        click.echo(f"Ask your documents at {url}")
        click.echo("Ctrl-C stops the chat.")
        if opens or (opens is None and _has_desktop()):
            webbrowser.open(url)

    log_to_stderr()
    page = make_page(Answerer(opened.index, writer), opened.library, title)  # type: ignore[arg-type]
    serve(
        page,
        host=host,
        port=port,
        max_file_bytes=max_file_bytes,
        password=os.environ.get(_PASSWORD) or None,
        on_ready=announce,
    )


def _has_desktop() -> bool:
    """Whether a browser that is opened here would be seen."""
    if not sys.stderr.isatty() or os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

"""Serves the page, and nothing but the page."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from secrets import compare_digest

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muvera_chat.shading import hover_rules
from muvera_core.serving import WebServer, is_loopback, listen, url_of

# Gradio's page consists of inline scripts and evaluates templates. What matters is that nothing leaves this host: no
# image, script, style, font or form of another one, whatever a document or a model writes.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")


class _WithHeaders:
    """Adds headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def make_app(
    page: gr.Blocks,
    *,
    max_file_bytes: int | None = None,
    hosts: Sequence[str] = ("*",),
    password: str | None = None,
) -> FastAPI:
    """The ASGI application that serves a page at "/".

    Args:
        page: the page.
        max_file_bytes: largest size of an upload.
        hosts: names that a request may ask for. Others are refused, so that no other web page can reach the chat under
            a name of its own.
        password: what users have to give, with any name. None lets everybody in.
    """
    app = FastAPI(openapi_url=None)
    assets = files("muvera_chat.ui") / "assets"
    script = (assets / "page.js").read_text("utf-8")
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        allowed_paths=[],
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=True,
        max_file_size=max_file_bytes,
        auth=None if password is None else lambda _, given: compare_digest(given.encode(), password.encode()),
        theme=gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=_FONT, font_mono=_MONO),
        css=(assets / "page.css").read_text("utf-8") + hover_rules(),
        head=f"<script>{script}</script>",
    )
    app.add_middleware(_WithHeaders)
    if "*" not in hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return app


def serve(
    page: gr.Blocks,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_file_bytes: int | None = None,
    password: str | None = None,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve a page until Ctrl-C.

    Args:
        page: the page.
        host: name or address of this machine to listen on.
        port: the port. 0 takes a free one.
        max_file_bytes: largest size of an upload.
        password: see ``make_app``.
        on_ready: gets the page's address when it can be opened.

    Raises:
        InvalidInputError: the host has no address.
        ServiceError: the port is in use.
    """
    sockets = listen([host], port)
    hosts = ("127.0.0.1", "localhost", "[", host) if is_loopback(host) else ("*",)
    temporary = tempfile.TemporaryDirectory(prefix="muvera-chat-", ignore_cleanup_errors=True)
    with temporary as folder, warnings.catch_warnings():
        before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder).resolve())  # uploads on their way to the documents
        try:
            warnings.filterwarnings("ignore", module=r"gradio\b")  # what it will have to change one day
            app = make_app(page, max_file_bytes=max_file_bytes, hosts=hosts, password=password)
            WebServer(app, on_ready=lambda: on_ready(url_of(sockets[0])), stop_timeout=2).run(sockets=sockets)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before
            for one in sockets:
                one.close()

"""An HTTP service over an index.

request → ``Guards`` let it in → ``create_app`` reads it → the index answers → JSON

``serve`` runs the application in one process or several; ``ray_serve.serve_app`` on Ray Serve, over a sharded index.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from muvera_core.errors import MissingExtraError
from muvera_core.serving.listening import is_loopback, listen, url_of
from muvera_core.serving.logs import log_to_stderr
from muvera_core.serving.processes import serve
from muvera_core.serving.settings import ServiceSettings

if TYPE_CHECKING:
    from muvera_core.serving.app import create_app
    from muvera_core.serving.web_server import WebServer

__all__ = ["ServiceSettings", "WebServer", "create_app", "is_loopback", "listen", "log_to_stderr", "serve", "url_of"]

# FastAPI and uvicorn are optional, and slow to import.
_MODULES = {"create_app": "app", "WebServer": "web_server"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"serving needs {error.name}: run pip install 'muvera-core[serve]'") from error

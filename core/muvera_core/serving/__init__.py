"""An HTTP service over an index.

request → ``Guards`` let it in → ``create_app`` reads it → the index answers → JSON

``serve`` runs the application in one process or several; ``ray_serve.serve_app`` on Ray Serve, over a sharded index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muvera_core.errors import MissingExtraError
from muvera_core.serving.logs import log_to_stderr
from muvera_core.serving.processes import serve
from muvera_core.serving.settings import ServiceSettings

if TYPE_CHECKING:
    from muvera_core.serving.app import create_app

__all__ = ["ServiceSettings", "create_app", "log_to_stderr", "serve"]


def __getattr__(name: str) -> Any:
    # FastAPI is optional, and slow to import.
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from muvera_core.serving.app import create_app
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"serving needs {error.name}: run pip install 'muvera-core[serve]'") from error
    return create_app

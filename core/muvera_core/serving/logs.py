"""How a service logs."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(name: str = "") -> None:
    """Write what happens to standard error, a line each."""
    who = f"muvera {name}".strip()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {who}: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

"""Ray, which is imported only when a sharded index is used."""

from __future__ import annotations

import logging
from types import ModuleType

from muvera_core.errors import MissingExtraError

_log = logging.getLogger(__name__)


def require_ray() -> ModuleType:
    """The module ``ray``, connected to a cluster.

    If the process is not connected yet, it is as by any first use of Ray: to the cluster that RAY_ADDRESS names, or one
    that runs on this machine, or a new one in this machine's processes. Call ``ray.init`` before to choose.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("a sharded index needs Ray: pip install 'muvera-core[ray]'") from error
    if not ray.is_initialized():
        _log.info("connecting to Ray by ray.init(): call it before, with arguments, to choose another cluster")
        ray.init()
    module: ModuleType = ray
    return module

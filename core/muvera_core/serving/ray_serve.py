"""The application of a service on Ray Serve, over an index whose shards all of its replicas share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from muvera_core.distributed import ClusterOptions, ShardedMuveraIndex
from muvera_core.encoders import PACKAGED_ENCODERS, TokenEncoder, named_encoder
from muvera_core.errors import InvalidInputError, MissingExtraError
from muvera_core.serving.settings import ServiceSettings
from muvera_core.validation import require_count, require_known_names, require_mapping, require_path

if TYPE_CHECKING:
    from os import PathLike

    from fastapi import FastAPI
    from ray.serve import Application

# A replica mostly waits for shards, so it answers more requests at the same time than it has cores.
_PLACES = 16
# What a config file can set of ``ClusterOptions``: what JSON can hold.
_IN_CONFIG = tuple({field.name for field in fields(ClusterOptions)} - {"detached", "shard_class"})


def serve_app(
    path: str | PathLike[str],
    encoder: TokenEncoder | Callable[[], TokenEncoder] | str | None = None,
    *,
    encoder_device: str | None = None,
    settings: ServiceSettings | None = None,
    cluster: ClusterOptions | None = None,
    num_replicas: int = 1,
    read_only: bool = False,
    **options: Any,
) -> Application:
    """Make an application of Ray Serve that answers what ``muvera serve`` answers, from a sharded index.

    Each replica encodes questions and asks the shards. The shards' processes are started with the first replica, and
    shared by all. They go on when the application is deleted, until ``end`` of an index that was opened with the same
    options, or until Ray's cluster ends. There is no /metrics: Ray Serve counts requests by itself.

    >>> serve.run(serve_app("/shared/notes"))  # doctest: +SKIP

    Args:
        path: the folder of the index, which ``ShardedMuveraIndex`` made.
        encoder: see ``ShardedMuveraIndex.create``; or the name of a packaged encoder, or a model's folder.
        encoder_device: the device that a named encoder computes on, in each replica and each shard's process. None
            takes the encoder's own default.
        settings: limits of the service. None takes the defaults, with 16 requests at the same time for each replica.
            Without tokens, everybody who can reach the port is let in.
        cluster: how the shards' processes run. None takes the defaults. ``detached`` is always set.
        num_replicas: number of replicas.
        read_only: refuse changes.
        **options: further options of ``ray.serve.deployment``, such as ``autoscaling_config`` or ``ray_actor_options``.

    Raises:
        MissingExtraError: Ray Serve or FastAPI is not installed.
        InvalidInputError: an argument cannot be used.
    """
    serve = _require_ray_serve()
    folder, source = require_path("path", path), _encoder_source(encoder, encoder_device)
    limits = ServiceSettings(n_threads=_PLACES) if settings is None else settings
    shared = replace(cluster or ClusterOptions(), detached=True)

    def open_app() -> FastAPI:
        """Called in each replica."""
        from muvera_core.serving import create_app

        index = ShardedMuveraIndex.open(folder, source, read_only=read_only, options=shared)
        return create_app(index, limits, worker=serve.get_replica_context().replica_id.unique_id)

    # The application has places itself, for reads and for writes, and says when there are no more.
    given: dict[str, Any] = {
        "name": "muvera",
        "max_ongoing_requests": 2 * (limits.n_places + limits.max_waiting),
        **({} if "autoscaling_config" in options else {"num_replicas": require_count("num_replicas", num_replicas)}),
        **options,
    }
    app: Application = serve.deployment(serve.ingress(open_app)(), **given).bind()
    return app


def app(args: Mapping[str, Any]) -> Application:
    """Make the application from the ``args`` of a config file of Ray Serve.

    Its ``import_path`` is ``muvera_core.serving.ray_serve:app``. The arguments are those of ``serve_app``, with objects
    in place of ``settings`` and ``cluster``.

    Raises:
        InvalidInputError: an argument is missing, is not known, or cannot be used.
    """
    given = require_mapping("args", args)
    if "path" not in given:
        raise InvalidInputError("args of the application must have 'path', the folder of a sharded index")
    for name, kind, known in (
        ("settings", ServiceSettings, [field.name for field in fields(ServiceSettings)]),
        ("cluster", ClusterOptions, _IN_CONFIG),
    ):
        if given.get(name) is not None:
            values = require_mapping(name, given[name])
            require_known_names(name, values, known)
            given[name] = kind(**values)
    return serve_app(**given)


def _encoder_source(
    encoder: TokenEncoder | Callable[[], TokenEncoder] | str | None, device: str | None
) -> TokenEncoder | Callable[[], TokenEncoder] | None:
    if isinstance(encoder, str):
        name = encoder if encoder in PACKAGED_ENCODERS else require_path("encoder", encoder)
        return partial(named_encoder, name, device=device)
    if device is not None:
        raise InvalidInputError(
            "encoder_device is for an encoder that is named, such as encoder='bundled': name it, or make the encoder "
            "with its own device"
        )
    return encoder


def _require_ray_serve() -> Any:
    try:
        import fastapi  # noqa: F401
        from ray import serve
    except ImportError as error:
        raise MissingExtraError("a service on Ray needs Ray Serve: pip install 'muvera-core[ray-serve]'") from error
    return serve

"""The index that users hold if its documents are spread over shards."""

from __future__ import annotations

import os
from typing import Any, Self, cast

from muvera_core.distributed.actors import EncoderSource, made_encoder
from muvera_core.distributed.cluster import RayCluster, create_cluster, open_cluster
from muvera_core.distributed.cluster_engine import ClusterEngine
from muvera_core.distributed.cluster_folder import ClusterFile, holds_sharded_index
from muvera_core.distributed.cluster_options import ClusterOptions
from muvera_core.distributed.ray_scatter import MemberReport
from muvera_core.distributed.resharding import Resharded, reshard
from muvera_core.encoders import default_encoder
from muvera_core.errors import IndexExistsError, IndexLockedError, InvalidInputError
from muvera_core.index import Engine, IndexCalls
from muvera_core.lexical import LexicalConfig
from muvera_core.set_encoders import FDEConfig
from muvera_core.storage import DEFAULT_PRECISION, Manifest, TokenPrecision
from muvera_core.validation import counted, require_count, require_path


class ShardedMuveraIndex(IndexCalls):
    """An index whose documents are spread over shards, in processes that Ray runs on one machine or many.

    It has the calls of ``MuveraIndex``, and finds what one index with the same documents would find: MaxSim scores are
    comparable between shards. A document's id decides which shard it is in. Each shard is an ordinary index in a folder
    of its own, with a process that writes and, if wanted, replicas that read; see ``ClusterOptions``.

    Unlike in one index, documents with equal scores and the results of ``find`` and ``iterate`` are not in the order in
    which they were added. A change of several documents is made whole or not at all by each shard, not by all together:
    see ``PartialWriteError``.

    It can be passed to tasks and actors of Ray, which then use the same processes.
    """

    def __init__(self, cluster: RayCluster, encoder: EncoderSource, made_with: str | None = None) -> None:
        """Use ``create``, ``open`` or ``open_or_create``."""
        self._cluster, self._encoder_source = cluster, encoder
        made = made_encoder(encoder)
        if made is None:
            made = default_encoder(_fingerprint(cluster) if made_with is None else made_with)
        super().__init__(cast(Engine, ClusterEngine(cluster, made)), made)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        encoder: EncoderSource = None,
        fde: FDEConfig | None = None,
        *,
        n_shards: int,
        options: ClusterOptions | None = None,
        token_precision: TokenPrecision = DEFAULT_PRECISION,
        pool_factor: int = 1,
        keep_tokens: float = 1.0,
        lexical: LexicalConfig | bool = True,
    ) -> Self:
        """Make an empty index.

        Args:
            path: a folder that does not exist or is empty. The processes find it by the same path on their nodes: on a
                disk that all share, or each on its own disk.
            encoder: turns text into token vectors. It must be possible to pickle it. Or a function without arguments
                that makes it, which is called in each process. None takes the bundled encoder.
            fde: see ``MuveraIndex.create``.
            n_shards: number of shards; ``reshard`` changes it.
            options: how the processes run. None takes the defaults.
            token_precision: see ``MuveraIndex.create``.
            pool_factor: see ``MuveraIndex.create``.
            keep_tokens: see ``MuveraIndex.create``.
            lexical: see ``MuveraIndex.create``.

        Raises:
            MissingExtraError: Ray is not installed.
            ServiceTimeoutError: the cluster has no room for the processes, or they are too slow.
            IndexExistsError: the folder is in use.
            InvalidInputError: a setting is invalid.
        """
        settings: dict[str, Any] = {
            "fde": fde,
            "token_precision": token_precision,
            "pool_factor": pool_factor,
            "keep_tokens": keep_tokens,
            "lexical": lexical,
        }
        folder = require_path("path", path)
        return cls(create_cluster(folder, require_count("n_shards", n_shards), encoder, settings, options), encoder)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: EncoderSource = None,
        *,
        read_only: bool = False,
        options: ClusterOptions | None = None,
    ) -> Self:
        """Open an index that ``create`` made.

        Args:
            path: the index's folder.
            encoder: the encoder that the index was made with; see ``create``.
            read_only: refuse changes. Any number of handles can read an index while one writes.
            options: how the processes run. None takes the defaults.

        Raises:
            MissingExtraError: Ray is not installed.
            NotAnIndexError: the folder holds no sharded index.
            IndexLockedError: another handle writes to the index.
            ServiceTimeoutError: the cluster has no room for the processes, or they are too slow.
            IndexFolderError: the other cases of ``MuveraIndex.open``.
        """
        return cls(open_cluster(require_path("path", path), encoder, options, read_only=read_only), encoder)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        encoder: EncoderSource = None,
        fde: FDEConfig | None = None,
        *,
        n_shards: int,
        options: ClusterOptions | None = None,
        **settings: Any,
    ) -> Self:
        """Open the index in a folder for writing. Make it if there is none.

        Args:
            path: the index's folder.
            encoder: see ``create``.
            fde: see ``create``. Used if the index is made.
            n_shards: see ``create``. An index that exists must have as many.
            options: see ``create``.
            **settings: the other arguments of ``create``. They are used if the index is made.

        Raises:
            InvalidInputError: the index has another number of shards.
        """
        folder = require_path("path", path)
        if not holds_sharded_index(folder):
            try:
                return cls.create(folder, encoder, fde, n_shards=n_shards, options=options, **settings)
            except (IndexExistsError, IndexLockedError):
                if not holds_sharded_index(folder):
                    raise  # otherwise another process has just made it
        has = ClusterFile.read(folder).n_shards
        if has != require_count("n_shards", n_shards):
            raise InvalidInputError(
                f"{folder} has {has} shards, got n_shards={n_shards}: give {has}, or open it and call reshard"
            )
        return cls.open(folder, encoder, options=options)

    @property
    def n_shards(self) -> int:
        """The number of shards."""
        return self._cluster.n_shards

    def members(self) -> list[MemberReport]:
        """The processes of all shards: which of them answer, where they are, and what they hold."""
        return self._cluster.members()

    def reshard(self, n_shards: int, *, show_progress: bool = False) -> Resharded:
        """Spread the documents over another number of shards. No text is encoded again.

        Searches go on meanwhile, and change to the new shards in one moment. Writes are refused with IndexLockedError.
        If this is interrupted, the index is as it was. It needs room for a copy of the index.

        Args:
            n_shards: the new number of shards.
            show_progress: show a bar on standard error.

        Returns:
            What was copied, and whether ``optimize`` should be called again.

        Raises:
            ReadOnlyIndexError: the index was opened for reading.
            StorageError: there is no room for the copy. Nothing was changed.
        """
        self._engine.require_writable()
        return reshard(self._cluster, require_count("n_shards", n_shards), show_progress=show_progress)

    def __repr__(self) -> str:
        content = counted(self.n_shards, "shard") if self._cluster.is_open else "closed"
        return f"<{type(self).__name__} {str(self.path)!r}: {content}>"

    def end(self) -> None:
        """Close the index, and end its processes also if they are detached; see ``ClusterOptions``."""
        self._cluster.end()

    def __reduce__(self) -> tuple[Any, ...]:  # type: ignore[override]  # other indexes cannot be pickled
        # While Ray gives a task its arguments, the task cannot ask shards for the encoder's fingerprint.
        return type(self), (self._cluster, self._encoder_source, self.encoder.fingerprint)


def _fingerprint(cluster: RayCluster) -> str:
    """The fingerprint of the encoder that the index was made with."""
    every: dict[int, tuple[()]] = dict.fromkeys(range(cluster.n_shards), ())
    manifests: dict[int, Manifest] = cluster.run(lambda scatter: scatter.read("manifest", every))
    return next(iter(manifests.values())).encoder

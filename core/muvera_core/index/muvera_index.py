"""The index that users hold: how it is made and opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from muvera_core.collection import Collection, create_collection, new_index_id, open_collection, remove_new_index
from muvera_core.encoders import (
    TokenEncoder,
    default_encoder,
    describe_encoder,
    require_encoder,
    require_keep_tokens,
    require_pool_factor,
    require_scipy,
)
from muvera_core.errors import IndexExistsError, IndexLockedError, InvalidInputError
from muvera_core.index.calls import IndexCalls
from muvera_core.index.collection_engine import CollectionEngine
from muvera_core.index.parts import accelerator_of
from muvera_core.lexical import LexicalConfig, resolve_lexical
from muvera_core.set_encoders import FDEConfig, resolve_fde_config
from muvera_core.storage import DEFAULT_PRECISION, Manifest, TokenPrecision, holds_index, read_encoder, require_fts5
from muvera_core.validation import (
    require_interval,
    require_known_names,
    require_path,
)

# The arguments of ``create`` that ``creating`` passes on.
_SETTINGS = ("token_precision", "pool_factor", "keep_tokens", "lexical", "device", "device_memory")


class MuveraIndex(IndexCalls):
    """A collection of documents that is searched by late interaction.

    Make one with ``open_or_create``, ``create`` or ``open``. Any number of threads may search while one adds or
    deletes.

    Example:
        >>> with MuveraIndex.create(None) as index:
        ...     _ = index.add(["Ants live in colonies.", "Owls hunt at night."], ids=["ant", "owl"])
        ...     index.search("Which bird is active after dark?", k=1)[0].id
        'owl'
    """

    def __init__(self, collection: Collection, encoder: TokenEncoder, *, refresh_interval: float | None = None) -> None:
        """Use ``open_or_create``, ``create`` or ``open``."""
        self.engine = CollectionEngine(collection, encoder, refresh_interval)
        super().__init__(self.engine, encoder)

    # Making and opening

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision = DEFAULT_PRECISION,
        pool_factor: int = 1,
        keep_tokens: float = 1.0,
        lexical: LexicalConfig | bool = True,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Make an empty index.

        Args:
            path: a folder that does not exist or is empty. None keeps the index in memory.
            encoder: turns text into token vectors. None takes the bundled encoder.
            fde: settings of the FDE that stage one starts with. None takes the defaults. Its dimension must be the
                encoder's.
            token_precision: how token vectors are stored. "8bit", "4bit" and "2bit" take that many bits for each of
                their numbers. Searches read the leading two bits of all candidates, and the rest of the best ones.
                "int8" takes 8 bits without slices, and "float16" 16. See the guide on how to choose.
            pool_factor: from 1 to 16. Similar tokens of a document are merged until about one in ``pool_factor`` is
                left. That saves space and time and loses some recall. Above 1, adding documents needs SciPy.
            keep_tokens: from .1 to 1. The share of a document's tokens that is kept, before any are merged. Dropped are
                those that others of its tokens can stand in for. It needs nothing else to be installed. At .75 it keeps
                nearly as much as merging would. For half the tokens and fewer, ``pool_factor`` loses less.
            lexical: settings of the word index, which lexical and hybrid searches (BM25) need. True takes the defaults:
                the texts' words, by the rules of English. False makes none. ``set_lexical`` changes it later.
            device: the device to search on; see ``open``. It is not part of the index.
            device_memory: see ``open``.

        Raises:
            IndexExistsError: the folder is in use.
            DimensionMismatchError: ``fde`` is for vectors of another width.
            InvalidInputError: a setting is invalid, or a word index is asked for that Python's SQLite cannot make.
            ReadOnlyIndexError: the folder cannot be made or written.
            MissingExtraError: ``pool_factor`` is above 1 and SciPy is missing, or the device is CUDA and CuPy is.
            DeviceError: the device cannot be used.
        """
        pool_factor, keep_tokens = require_pool_factor(pool_factor), require_keep_tokens(keep_tokens)
        if pool_factor > 1:
            require_scipy()
        encoder = default_encoder() if encoder is None else require_encoder(encoder)
        fde = resolve_fde_config(fde, encoder.dimension)
        words = resolve_lexical(lexical)
        if words is not None:
            require_fts5()
        manifest = Manifest(
            new_index_id(),
            encoder.fingerprint,
            token_precision,
            fde,
            pool_factor,
            lexical=words,
            encoder_info=describe_encoder(encoder),
            keep_tokens=keep_tokens,
        )
        gpu = accelerator_of(device, device_memory)
        folder = None if path is None else require_path("path", path)
        return cls(create_collection(folder, manifest, gpu), encoder)

    @classmethod
    @contextmanager
    def creating(
        cls,
        path: str | os.PathLike[str] | None,
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        **settings: Any,
    ) -> Iterator[MuveraIndex]:
        """Make an index in a ``with`` block that fills it. If the block fails, nothing of the index is left.

        After the block the index stays open.

        >>> with MuveraIndex.creating(None) as index:
        ...     _ = index.add(["Owls hunt at night."])
        >>> index.count()
        1

        Args:
            path: see ``create``.
            encoder: see ``create``.
            fde: see ``create``.
            **settings: the other arguments of ``create``.
        """
        require_known_names("MuveraIndex.creating", settings, _SETTINGS)
        folder = None if path is None else require_path("path", path)
        is_new = folder is not None and not os.path.lexists(folder)
        index = cls.create(path, encoder, fde, **settings)
        try:
            yield index
        except BaseException:
            index.close()
            if folder is not None:
                remove_new_index(folder, with_folder=is_new)
            raise

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        fde: FDEConfig | None = None,
        *,
        token_precision: TokenPrecision | None = None,
        pool_factor: int | None = None,
        keep_tokens: float | None = None,
        lexical: LexicalConfig | bool | None = None,
        show_progress: bool = False,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Open the index in a folder for writing. Make it if there is none.

        Args:
            path: the index's folder.
            encoder: see ``open``.
            fde: see ``create``. None takes the index's own, or the defaults.
            token_precision: see ``create``. None takes the index's own, or "int8". An index that ``optimize`` has
                narrowed opens with its former precision, too.
            pool_factor: see ``create``. None takes the index's own, or 1.
            keep_tokens: see ``create``. None takes the index's own, or 1.
            lexical: see ``create``. None takes the index's own, or True.
            show_progress: see ``open``.
            device: see ``open``.
            device_memory: see ``open``.

        Raises:
            InvalidInputError: the index has another setting than the one given.
            IndexExistsError: the folder holds something else.
            IndexFolderError: the same cases as for ``open``.
        """
        on_device: dict[str, Any] = {"device": device, "device_memory": device_memory}
        folder = require_path("path", path)
        if not holds_index(folder):
            try:
                return cls.create(
                    path,
                    encoder,
                    fde,
                    token_precision=token_precision or DEFAULT_PRECISION,
                    pool_factor=1 if pool_factor is None else pool_factor,
                    keep_tokens=1.0 if keep_tokens is None else keep_tokens,
                    lexical=True if lexical is None else lexical,
                    **on_device,
                )
            except (IndexExistsError, IndexLockedError):
                if not holds_index(folder):
                    raise  # otherwise another process has just made it
        index = cls.open(path, encoder, show_progress=show_progress, **on_device)
        manifest = index._engine.manifest
        if token_precision is not None and manifest.codec.may_replace(token_precision):
            token_precision = None  # the index was narrowed, and what opens it need not know
        given = {
            "fde": fde,
            "token_precision": token_precision,
            "pool_factor": pool_factor,
            "keep_tokens": keep_tokens,
        }
        for name, value in given.items():
            if value is not None and value != getattr(manifest, name):
                index.close()
                raise InvalidInputError(
                    f"{path} was made with {name}={getattr(manifest, name)!r}, which cannot be changed, got {value!r}: "
                    "leave the argument out, or make another index"
                )
        if lexical is not None and resolve_lexical(lexical) != manifest.lexical:
            index.close()
            raise InvalidInputError(
                f"{path} has lexical={manifest.lexical!r}, got {lexical!r}: leave the argument out, or call set_lexical"
            )
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: TokenEncoder | None = None,
        *,
        read_only: bool = False,
        refresh_interval: float | None = 1.0,
        show_progress: bool = False,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> MuveraIndex:
        """Open an index that ``create`` made.

        Args:
            path: the index's folder.
            encoder: the encoder that the index was made with. None takes the bundled encoder, in the dimension that
                the index was made with. An index never loads a model by itself.
            read_only: refuse changes. Any number of processes can read an index. They need no write permission.
            refresh_interval: if ``read_only``, the seconds after which a search or another read looks whether the
                writer has committed something, and takes it in; see ``refresh``. 0 looks every time, None never.
            show_progress: show bars if stage one has to be derived again, and while documents are copied to a GPU.
            device: the device to search on. "cpu"; "cuda" or "cuda:N" for a GPU, which must work; "auto" for the first
                GPU, or the CPU, with a ``DeviceFallbackWarning``, if the GPU cannot be used.
            device_memory: bytes of GPU memory to cache documents in. None takes half of what is free. A search copies
                the documents to the GPU that it needs and that are not cached.

        Raises:
            InvalidInputError: ``device`` is not the name of a device, or ``refresh_interval`` is negative.
            MissingExtraError: the device is CUDA and CuPy is not installed.
            DeviceError: the device cannot be used.
            NotAnIndexError: the folder holds no index.
            EncoderMismatchError: the index was made with another encoder.
            UnsupportedFormatError: a newer muvera wrote the index, or an older one did and ``read_only`` is set.
            IndexLockedError: another writer has the index open.
            ReadOnlyIndexError: the folder cannot be written and ``read_only`` is not set.
            CorruptIndexError: files are missing or damaged.
            StorageError: files cannot be read.
        """
        folder = require_path("path", path)
        refresh_interval = require_interval("refresh_interval", refresh_interval)
        gpu = accelerator_of(device, device_memory)
        encoder = default_encoder(read_encoder(folder)) if encoder is None else require_encoder(encoder)
        collection = open_collection(
            folder,
            encoder=encoder.fingerprint,
            read_only=read_only,
            show_progress=show_progress,
            accelerator=gpu,
        )
        return cls(collection, encoder, refresh_interval=refresh_interval)

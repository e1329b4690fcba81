"""Opens or makes the index of a chat, and brings it in line with the files that it is to answer from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muvera_chat.documents import Library, UploadLimits, Uploads
from muvera_core import MuveraIndex, TokenEncoder
from muvera_core.corpus import IMAGE_SUFFIXES, READABLE
from muvera_core.encoders import is_image_encoder
from muvera_core.errors import IndexLockedError, InvalidInputError
from muvera_core.storage import holds_index
from muvera_core.sync import SyncProgress

_DEFAULT_INDEX = "documents.muvera"


@dataclass(frozen=True)
class Opened:
    """What a chat works on.

    Attributes:
        index: the index, which is open.
        library: its documents.
    """

    index: MuveraIndex
    library: Library


@contextmanager
def open_chat(
    paths: Sequence[Path],
    folder: Path | None = None,
    *,
    encoder_of: Callable[[Path], TokenEncoder | None] = lambda _: None,
    device: str = "cpu",
    read_only: bool = False,
    max_file_bytes: int = UploadLimits.max_file_bytes,
    progress_bar: Callable[..., Any],
    say: Callable[[str], None],
) -> Iterator[Opened]:
    """Open the index, and index the files. The index is closed at the end of the block.

    Args:
        paths: files and folders to index, or one folder of an index.
        folder: the index's folder. None takes the one of ``index_folder``.
        encoder_of: gives the encoder for an index's folder. None stands for the index's usual one.
        device: see ``MuveraIndex.open``.
        read_only: open the index for reading: no file is indexed, and nobody can change anything.
        max_file_bytes: largest size of an upload.
        progress_bar: makes a bar of tqdm.
        say: shows a line.

    Raises:
        InvalidInputError: an index is given together with other paths, or is missing and may not be made.
        IndexFolderError: the index cannot be opened.
    """
    folder, files = index_folder(paths, folder)
    encoder = encoder_of(folder)
    if read_only:
        if files:
            raise InvalidInputError("--read-only indexes nothing: give the folder of an index, and no other PATH")
        with MuveraIndex.open(folder, encoder, read_only=True, device=device) as index:
            yield Opened(index, Library(index))
        return
    with _opened_for_writing(folder, encoder, device) as index:
        limits = UploadLimits(max_file_bytes=max_file_bytes)
        suffixes = READABLE + (IMAGE_SUFFIXES if is_image_encoder(index.encoder) else ())
        uploads = Uploads(folder.absolute().with_name(f"{folder.stem}-uploads"), suffixes, limits)
        library = Library(index, uploads)
        if files:
            _follow(library, files, progress_bar, say)
        yield Opened(index, library)


def index_folder(paths: Sequence[Path], folder: Path | None) -> tuple[Path, list[Path]]:
    """The index's folder, and the files and folders to index.

    >>> index_folder([Path("notes/")], None)
    (PosixPath('notes.muvera'), [PosixPath('notes')])

    Raises:
        InvalidInputError: an index is given together with other paths.
    """
    indexes = [path for path in paths if holds_index(path.absolute())]
    if indexes:
        if len(paths) > 1 or folder is not None:
            raise InvalidInputError(
                f"{indexes[0]} is an index: give it as the only PATH, or as --index with the PATHs to index into it"
            )
        return indexes[0], []
    if folder is None:
        folder = Path(_DEFAULT_INDEX)
        if paths:
            first = paths[0] if paths[0].name not in ("", "..") else paths[0].resolve()
            folder = first.with_name(f"{first.stem if first.is_file() else first.name}.muvera")
    return folder, list(paths)


def _opened_for_writing(folder: Path, encoder: TokenEncoder | None, device: str) -> MuveraIndex:
    try:
        return MuveraIndex.open_or_create(folder, encoder, device=device)
    except IndexLockedError as error:
        raise IndexLockedError(f"{error}. To chat with it meanwhile, give {folder} and --read-only") from error


def _follow(
    library: Library, files: Sequence[Path], progress_bar: Callable[..., Any], say: Callable[[str], None]
) -> None:
    with progress_bar(desc="reading", unit="") as bar:

        def show(progress: SyncProgress) -> None:
            bar.set_description(progress.stage, refresh=False)
            bar.total = progress.total
            bar.update(progress.done - bar.n)

        report = library.follow(files, show)
    say(str(report))

"""Documents to add: their records, where their tokens come from, and which of them the index already holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from muvera_core.batches import batched
from muvera_core.encoders import ImageEncoder, TokenEncoder, TokenReduction, naming, warn
from muvera_core.errors import EncoderError, SkippedImageWarning
from muvera_core.images import ImageRecord, ImageSource, UnreadableImageError
from muvera_core.storage import COPY_BATCH, Snapshot, Store, StoredDocument
from muvera_core.token_embeddings import TokenEmbeddings
from muvera_core.validation import counted, require_encoded, shown

if TYPE_CHECKING:
    from PIL.Image import Image

# Most images that a warning lists.
_SHOWN_IMAGES = 10
# Batches whose texts are sorted by length together. Encoders that fill up the texts of a batch to the longest one then
# compute little in vain. Not all texts of a call: a graph of stage one should not get documents by length.
_BATCHES_SORTED = 16


@dataclass(frozen=True)
class Record:
    """A document without its tokens.

    Attributes:
        id: the user's id.
        text: the passage; or the text to show with an image. None if there is none.
        metadata: a JSON object, as text.
        image: the image that the tokens are made from. None if they are made from the text.
    """

    id: str
    text: str | None
    metadata: str
    image: ImageRecord | None = None


class TokenSource(Protocol):
    """Gives the tokens of documents that are about to be added."""

    def batches(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], TokenEmbeddings]]:
        """The tokens of the documents at these places, in any grouping, each group with its places.

        A document that is left out turns out to have none. It is not added.
        """


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Tokens that an encoder makes when they are asked for, so that they are never in memory together.

    Attributes:
        encoder: the index's encoder.
        records: the documents. Each has a text.
        reduction: what is done to the tokens before they are stored.
        batch_size: texts per call of the encoder.
        show_progress: show a bar on standard error.
    """

    encoder: TokenEncoder
    records: Sequence[Record]
    reduction: TokenReduction
    batch_size: int
    show_progress: bool

    def batches(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], TokenEmbeddings]]:
        """See ``TokenSource``. Each distinct text is encoded once, together with texts of similar length."""
        same: dict[str, list[int]] = {}
        for place in places:
            same.setdefault(self.records[place].text or "", []).append(place)
        with tqdm(total=len(places), desc="encoding", unit="doc", disable=not self.show_progress) as bar:
            for texts in self._batches_by_length(same):
                with naming([self.records[same[text][0]].id for text in texts]):
                    encoded = self.encoder.encode_documents(texts)
                encoded = require_encoded(encoded, len(texts), self.encoder.dimension)
                reduced = self.reduction.apply(encoded)
                yield [same[text][0] for text in texts], reduced
                bar.update(len(texts))
                copies = ((place, i) for i, text in enumerate(texts) for place in same[text][1:])
                for batch in batched(copies, self.batch_size):
                    yield [place for place, _ in batch], reduced.take([i for _, i in batch])
                    bar.update(len(batch))

    def _batches_by_length(self, texts: Iterable[str]) -> Iterator[list[str]]:
        for window in batched(texts, _BATCHES_SORTED * self.batch_size):
            yield from batched(sorted(window, key=len), self.batch_size)


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Tokens of images, which are read and encoded when they are asked for.

    Images that turn out to be damaged, or that the model refuses while it takes others, are left out, with a
    ``SkippedImageWarning`` at the end.

    Attributes:
        encoder: the index's encoder.
        records: the documents.
        sources: the image of each document.
        reduction: what is done to the tokens before they are stored.
        batch_size: images per call of the encoder.
        show_progress: show a bar on standard error.
    """

    encoder: ImageEncoder
    records: Sequence[Record]
    sources: Sequence[ImageSource]
    reduction: TokenReduction
    batch_size: int
    show_progress: bool

    def batches(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], TokenEmbeddings]]:
        """See ``TokenSource``.

        Raises:
            EncoderError: the model refuses all images of the first batch.
        """
        skipped: list[str] = []
        has_encoded = False
        with tqdm(total=len(places), desc="encoding", unit="image", disable=not self.show_progress) as bar:
            for batch in batched(places, self.batch_size):
                images, read = [], []
                for place in batch:
                    try:
                        images.append(self.sources[place].load())
                        read.append(place)
                    except UnreadableImageError as error:
                        skipped.append(self._problem(place, error))
                for group, encoded in self._encode(read, images, skipped, may_refuse_all=has_encoded):
                    has_encoded = True
                    yield group, self.reduction.apply(encoded)
                bar.update(len(batch))
        warn_of_skipped_images(skipped)

    def _encode(
        self, places: list[int], images: list[Image], skipped: list[str], *, may_refuse_all: bool
    ) -> Iterator[tuple[list[int], TokenEmbeddings]]:
        """The tokens of images. If the model refuses a batch, each image is tried alone."""
        if not places:
            return
        try:
            yield places, self._call(places, images)
            return
        except EncoderError as error:
            problem, refused = error, []
        for place, image in zip(places, images, strict=True):
            try:
                yield [place], self._call([place], [image])
            except EncoderError as error:
                problem = error
                refused.append(self._problem(place, error))
        if len(refused) == len(places) and not may_refuse_all:
            raise EncoderError(f"no image could be encoded: {refused[0]}") from problem
        skipped += refused

    def _call(self, places: list[int], images: list[Image]) -> TokenEmbeddings:
        with naming([self.records[place].id for place in places]):
            encoded = self.encoder.encode_images(images)
        return require_encoded(encoded, len(places), self.encoder.dimension)

    def _problem(self, place: int, error: Exception) -> str:
        record = self.records[place]
        return image_problem(record.id, record.image and record.image.path, str(error))


def image_problem(id: str, path: object, problem: str) -> str:
    """The line of a warning about one image: its id, its path if there is one, and what is wrong."""
    return f"{shown(id)} ({f'{path}: ' if path else ''}{problem})"


def warn_of_skipped_images(problems: Sequence[str]) -> None:
    """Give a ``SkippedImageWarning`` about images that cannot be read, if there are any."""
    warn_of_images(problems, f"skipped {counted(len(problems), 'image')}")


def warn_of_images(problems: Sequence[str], head: str) -> None:
    """Give a ``SkippedImageWarning`` that lists problems, if there are any."""
    if problems:
        listed = ", ".join(problems[:_SHOWN_IMAGES]) + (", …" if len(problems) > _SHOWN_IMAGES else "")
        warn(f"{head}: {listed}", SkippedImageWarning)


@dataclass(frozen=True, eq=False)
class GivenTokens:
    """Tokens that the user has computed.

    Attributes:
        embeddings: the tokens of all documents.
    """

    embeddings: TokenEmbeddings

    def batches(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], TokenEmbeddings]]:
        """See ``TokenSource``. Some at a time: the copies that storing them takes are then small."""
        for batch in batched(places, COPY_BATCH):
            yield batch, self.embeddings.take(batch)


NO_TOKENS = GivenTokens(TokenEmbeddings.from_list([]))


@dataclass(frozen=True)
class Comparison:
    """What adding documents has to do.

    Attributes:
        new: places of the documents whose tokens are needed.
        retagged: place of each document whose tokens can stay, but not its record, with its present key.
    """

    new: list[int]
    retagged: dict[int, int]


def compare(store: Store, snapshot: Snapshot, records: Sequence[Record]) -> Comparison:
    """Compare documents with those that are stored under the same ids. What is stored as it is appears in neither part.

    A document without text and image counts as new, because its tokens cannot be compared.
    """
    new: list[int] = []
    retagged: dict[int, int] = {}
    for places in batched(range(len(records)), COPY_BATCH):
        ids = [records[place].id for place in places]
        stored = {document.id: document for document in store.documents_by_id(snapshot, ids)}
        for place in places:
            record = records[place]
            before = stored.get(record.id)
            if before is None or not _same_tokens(before, record):
                new.append(place)
            elif (before.text, before.image) != (record.text, record.image) or not same_metadata(
                before, json.loads(record.metadata)
            ):
                retagged[place] = before.key
    return Comparison(new, retagged)


def _same_tokens(before: StoredDocument, record: Record) -> bool:
    """Whether a document's tokens were made from the same image or, without one, from the same text."""
    if before.image is None or record.image is None:
        return before.image is record.image is None and before.text == record.text is not None
    return before.image.digest == record.image.digest


def same_metadata(document: StoredDocument, metadata: Mapping[str, Any]) -> bool:
    """Whether a document has this metadata. 1, 1.0 and True differ, as they do in JSON."""
    return json.dumps(document.metadata, sort_keys=True) == json.dumps(metadata, sort_keys=True)

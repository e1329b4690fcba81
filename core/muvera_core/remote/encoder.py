"""The encoder of an index behind a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from muvera_core.token_embeddings import IntArray, TokenEmbeddings
from muvera_core.wire import EncoderInfo, ServiceInfo

if TYPE_CHECKING:
    from PIL.Image import Image


class RemoteEncoder:
    """An ``ImageEncoder`` that encodes at a service, by its index's encoder."""

    def __init__(self, call: Callable[..., Any]) -> None:
        """Encode at a service.

        Args:
            call: makes a call of the service by its name; see ``RemoteMuveraIndex.call``.
        """
        self._call = call

    @cached_property
    def _facts(self) -> EncoderInfo:
        info: ServiceInfo = self._call("info")
        return info.encoder

    @property
    def dimension(self) -> int:
        """Width of a token vector."""
        return self._facts.dimension

    @property
    def fingerprint(self) -> str:
        """Identifies the model and its settings."""
        return self._facts.fingerprint

    @property
    def embeds_images(self) -> bool:
        """Whether the encoder embeds images. If not, only texts can be encoded."""
        return self._facts.embeds_images

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that the encoder was made with, as far as it tells them."""
        return self._facts.settings

    def encode_documents(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of passages, in order."""
        embeddings: TokenEmbeddings = self._call("encode_documents", texts)
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> TokenEmbeddings:
        """Token vectors of queries, in order."""
        embeddings: TokenEmbeddings = self._call("encode_queries", texts)
        return embeddings

    def encode_images(self, images: Sequence[Image]) -> TokenEmbeddings:
        """Token vectors of images, in order."""
        embeddings: TokenEmbeddings = self._call("encode_images", images)
        return embeddings

    def image_patches(self, width: int, height: int) -> IntArray:
        """Row and column of the part of an image that each of its tokens stands for, int64, shape (tokens, 2)."""
        patches: IntArray = self._call("image_patches", width, height)
        return patches

    def document_spans(self, text: str) -> IntArray:
        """Start and end character of each token of ``encode_documents([text])``, int64, shape (tokens, 2)."""
        spans: IntArray = self._call("document_spans", text)
        return spans

    def query_spans(self, text: str) -> IntArray:
        """The same for ``encode_queries([text])``."""
        spans: IntArray = self._call("query_spans", text)
        return spans

from __future__ import annotations

from pathlib import Path

from qdrant_client import QdrantClient, models

from peers.protocol import Documents, FloatArray

_BATCH = 64


class Adapter:
    """Qdrant's local mode, with the multivector comparator MaxSim. It scores every document in NumPy.

    Qdrant offers this mode for development and tests. Its server, which has graphs and quantisation and needs a service
    of its own, would do better.
    """

    def build(self, documents: Documents, folder: Path) -> None:
        client = QdrantClient(path=str(folder))
        client.create_collection(
            "documents",
            vectors_config=models.VectorParams(
                size=documents.dimension,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        )
        for start in range(0, len(documents), _BATCH):
            numbers = range(start, min(start + _BATCH, len(documents)))
            points = [models.PointStruct(id=i, vector=documents[i].tolist()) for i in numbers]
            client.upsert("documents", points)
        client.close()

    def open(self, folder: Path) -> None:
        self._client = QdrantClient(path=str(folder))

    def search(self, query: FloatArray, k: int) -> list[int]:
        found = self._client.query_points("documents", query=query.tolist(), limit=k)
        return [int(point.id) for point in found.points]

"""What docs/vector-databases.md takes for given: an index, and a collection of Qdrant that has its FDE vectors."""

import pytest

from muvera_core import FDEConfig, FixedDimensionalEncoder, MuveraIndex, TokenEmbeddings

qdrant = pytest.importorskip("qdrant_client", reason="needs qdrant-client")
client = qdrant.QdrantClient(":memory:")
index = MuveraIndex.create(None)
index.add(["We raise prices in May.", "Owls hunt at night."], ids=["prices", "owls"])
_fde = FixedDimensionalEncoder(FDEConfig.for_dimension(index.encoder.dimension))
_tokens = TokenEmbeddings.from_list(list(index.get_embeddings(["prices", "owls"]).values()))
client.create_collection(
    "passages",
    vectors_config=qdrant.models.VectorParams(size=_fde.output_dimension, distance=qdrant.models.Distance.COSINE),
)
client.upsert(
    "passages",
    [
        qdrant.models.PointStruct(id=number, vector=vector.tolist(), payload={"id": name})
        for number, (name, vector) in enumerate(zip(["prices", "owls"], _fde.encode_documents(_tokens), strict=True))
    ],
)

"""Makes tests/core/data/colbert-checkpoint: a small ColBERT checkpoint, and its vectors by colbert-ai.

    python tests/core/make_colbert_checkpoint.py

Needs muvera-core[colbert]. colbert-ai and sentence-transformers 6 cannot be installed together, so that their encoders
are compared through these files: test_colbert_encoder.py reads them beside colbert-ai, and
test_sentence_transformer_encoder.py beside sentence-transformers.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("data") / "colbert-checkpoint"
VECTORS = FOLDER / "vectors.npz"
WORDS = [
    "the",
    "an",
    "owl",
    "heron",
    "ant",
    "hunt",
    "stand",
    "live",
    "still",
    "deep",
    "in",
    "at",
    "by",
    "night",
    "day",
    "water",
    "tree",
    "what",
    "who",
    "which",
    "where",
    "when",
]
# The encoders differ in questions that are too long, and in unknown words.
QUESTIONS = ["what ants live where?", "", "an owl", "x-1, [SEP] y"]
DOCUMENTS = [
    "The owl, at night!",
    "",
    "an ant",
    "herons stand still in deep water by day; owls hunt at night...",
    "x-1, [SEP] y",
]


def main() -> None:
    import torch
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = string.ascii_lowercase + string.digits
    pieces = [*special, *string.punctuation, *characters, *(f"##{character}" for character in characters), *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.add_special_tokens([name for name in special if "unused" not in name])
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    (FOLDER / "vocab.txt").write_text("\n".join(pieces) + "\n")
    write("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 48})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=48,
        initializer_range=0.3,
        architectures=["HF_ColBERT"],
    )
    model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(FOLDER)
    write("config.json", json.loads((FOLDER / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]})
    weights = {f"bert.{name}": tensor for name, tensor in load_file(FOLDER / "model.safetensors").items()}
    weights["linear.weight"] = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    save_file(weights, FOLDER / "model.safetensors", metadata={"format": "pt"})
    write(
        "artifact.metadata",
        {
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "dim": 8,
            "doc_maxlen": 32,
            "query_maxlen": 16,
            "mask_punctuation": True,
            "attend_to_mask_tokens": False,
            "similarity": "cosine",
        },
    )
    from muvera_core.encoders import ColBERTEncoder

    encoder = ColBERTEncoder(FOLDER, device="cpu")
    documents, queries = encoder.encode_documents(DOCUMENTS), encoder.encode_queries(QUESTIONS)
    np.savez_compressed(
        VECTORS,
        documents=documents.vectors,
        document_offsets=documents.offsets,
        queries=queries.vectors,
        query_offsets=queries.offsets,
    )


def write(name: str, content: object) -> None:
    (FOLDER / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

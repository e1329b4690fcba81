"""Small late-interaction models with random weights, in every format that sentence-transformers reads.

The classes, files and settings are those of real models. Only the sizes are small.
"""

from __future__ import annotations

import json
import string
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = """
the a of in at by on is are and or to for with from that this who which what when where how long small large
owl owls heron herons ant ants bird birds fish water night day dark light hunt hunts live lives colony colonies
stand still shallow deep active after before mouse mice tree trees forest river lake winter summer
""".split()  # noqa: SIM905
POSITIONS = 64
QUERY_LENGTH = 32
HIDDEN = 32


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer like BERT's: some words, and the ASCII characters. Other characters are [UNK]."""
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    pieces = [*special, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like ModernBERT's: it knows every text, and a word's token has the space before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )


def save_bert(folder: Path, extra_tokens: list[str] | None = None, seed: int = 0, *, has_markers: bool = False) -> Path:
    """A small BERT without a head."""
    tokenizer = wordpiece_tokenizer()
    if extra_tokens:
        tokenizer.add_tokens(extra_tokens)
    if has_markers:
        tokenizer.add_special_tokens({"additional_special_tokens": ["[unused0]", "[unused1]"]})
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.05,
    )
    model = BertModel(config).eval()
    # As in a trained model, equal words have similar vectors wherever they are, and [MASK] decides nothing by itself.
    model.embeddings.position_embeddings.weight.data *= 0.1
    _equate(model.embeddings.word_embeddings, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_modernbert(folder: Path, seed: int = 0) -> Path:
    """A small ModernBERT without a head."""
    tokenizer = bpe_tokenizer()
    torch.manual_seed(seed)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        local_attention=16,
        initializer_range=0.05,
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"[{name.upper()}]") for name in ("pad", "cls", "sep")},
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    model = ModernBertModel(config).eval()
    _equate(model.embeddings.tok_embeddings, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _equate(embeddings: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Make [MASK] match [SEP], which every text has."""
    embeddings.weight.data[tokenizer.mask_token_id] = embeddings.weight.data[tokenizer.sep_token_id]


def dense(n_in: int, n_out: int, **settings: Any) -> Dense:
    return Dense(n_in, n_out, module_input_name="token_embeddings", **settings)


def native_model(base: Path, **settings: Any) -> MultiVectorEncoder:
    """A model in sentence-transformers' own format: fixed query expansion, markers, no vectors of punctuation."""
    torch.manual_seed(1)
    length = settings.pop("document_length", 40)
    expansion = settings.pop("query_expansion", {"strategy": "fixed", "attend": False, "length": QUERY_LENGTH})
    head = settings.pop("head", None) or [dense(HIDDEN, 16, bias=False, activation_function=torch.nn.Identity())]
    after = settings.pop("after", [Normalize(module_input_name="token_embeddings")])
    skiplist = settings.pop("skiplist_words", list(string.punctuation))
    transformer = Transformer(str(base), document_length=length, query_expansion=expansion, **settings.pop("knobs", {}))
    prompts = settings.pop("prompts", {"query": "[unused0] ", "document": "[unused1] "})
    assert not settings
    return MultiVectorEncoder(
        modules=[transformer, *head, MultiVectorMask(skiplist_words=skiplist), *after], prompts=prompts, device="cpu"
    )


def deep_head() -> list[Dense]:
    """A head of three layers: feed-forward with an activation, one with a residual connection, and a projection."""
    return [
        dense(HIDDEN, 48, activation_function=torch.nn.GELU()),
        dense(48, 48, use_residual=True, activation_function=torch.nn.SiLU()),
        dense(48, 12, bias=False, use_residual=True, activation_function=torch.nn.Identity()),
    ]


def save_native(folder: Path, base: Path, **settings: Any) -> Path:
    native_model(base, **settings).save_pretrained(str(folder), create_model_card=False)
    return folder


def save_pylate(folder: Path) -> Path:
    """A checkpoint as PyLate up to version 3 saves it: [Transformer, Dense], and settings at the top level."""
    base = save_bert(folder, extra_tokens=["[Q] ", "[D] "], seed=3)
    torch.manual_seed(4)
    (base / "1_Dense").mkdir()
    save_file({"linear.weight": torch.randn(16, HIDDEN)}, base / "1_Dense" / "model.safetensors")
    write_json(
        base / "1_Dense" / "config.json",
        {
            "in_features": HIDDEN,
            "out_features": 16,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
            "use_residual": False,
        },
    )
    write_json(base / "sentence_bert_config.json", {"max_seq_length": 39, "do_lower_case": False})
    write_json(
        base / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ],
    )
    write_json(
        base / "config_sentence_transformers.json",
        {
            "model_type": "ColBERT",
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "MaxSim",
            "query_prefix": "[Q] ",
            "document_prefix": "[D] ",
            "query_length": QUERY_LENGTH,
            "document_length": 40,
            "attend_to_expansion_tokens": False,
            "do_query_expansion": True,
            "skiplist_words": list(string.punctuation),
        },
    )
    return base


def save_stanford(folder: Path) -> Path:
    """A checkpoint as colbert-ai saves it: linear.weight beside BERT's weights, and artifact.metadata."""
    base = save_bert(folder, seed=5)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(base / "model.safetensors").items()}
    torch.manual_seed(6)
    weights["linear.weight"] = torch.randn(16, HIDDEN)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    write_json(base / "config.json", config | {"architectures": ["HF_ColBERT"]})
    write_json(
        base / "artifact.metadata",
        {
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "dim": 16,
            "doc_maxlen": 40,
            "query_maxlen": QUERY_LENGTH,
            "mask_punctuation": True,
            "attend_to_mask_tokens": False,
        },
    )
    return base


def save_all(folder: Path) -> dict[str, Path]:
    """One folder per kind of model."""
    bert = save_bert(folder / "bert")
    modernbert = save_modernbert(folder / "modernbert")
    no_markers = {"query": "", "document": ""}
    with_markers = save_bert(folder / "bert-with-markers", has_markers=True)
    return {
        "native": save_native(folder / "native", with_markers),
        "deep-head": save_native(folder / "deep-head", modernbert, head=deep_head(), prompts=no_markers),
        "text-prompts": save_native(
            folder / "text-prompts",
            modernbert,
            prompts={"query": "query: ", "document": "passage: "},
            query_expansion=None,
            skiplist_words=[],
            knobs={"query_length": QUERY_LENGTH},
        ),
        "min-expansion": save_native(
            folder / "min-expansion",
            bert,
            query_expansion={"strategy": "min", "attend": True, "length": 12},
            document_length=None,
        ),
        "pooling": save_native(
            folder / "pooling",
            with_markers,
            after=[Normalize(module_input_name="token_embeddings"), HierarchicalTokenPooling(2)],
        ),
        "not-normalized": save_native(folder / "not-normalized", with_markers, after=[]),
        "pylate": save_pylate(folder / "pylate"),
        "stanford": save_stanford(folder / "stanford"),
    }


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def quietly(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function of the library without its warnings about deprecated parts of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


def save_xlm_roberta(folder: Path) -> Path:
    """A backbone whose positions begin after the padding's, and whose tokenizer does not know how many there are."""
    tokenizer = bpe_tokenizer()
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
    )
    XLMRobertaModel(config).eval().save_pretrained(folder)
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    return folder


def save_decoder(folder: Path) -> Path:
    """A backbone without markers, which pads on the left."""
    tokenizer = bpe_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.padding_side = "left"
    torch.manual_seed(8)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    Qwen3Model(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_byte_model(folder: Path) -> Path:
    """A backbone whose tokenizer is written in Python and gives no offsets."""
    tokenizer = ByT5Tokenizer(model_max_length=POSITIONS)
    torch.manual_seed(9)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
    )
    BertModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def router_model(base: Path) -> MultiVectorEncoder:
    """A model with two backbones: one for queries, one for documents."""
    router = Router.for_query_document(
        query_modules=[Transformer(str(base), query_length=20)],
        document_modules=[Transformer(str(base), document_length=30)],
    )
    torch.manual_seed(10)
    after = [dense(HIDDEN, 16), MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=[router, *after], device="cpu")


def unusual_models(folder: Path) -> dict[str, MultiVectorEncoder]:
    """Models that are built in other ways than most."""
    nothing = {"query": "", "document": ""}
    return {
        "router": router_model(save_bert(folder / "bert")),
        "decoder": native_model(save_decoder(folder / "decoder"), prompts={"query": "Query: ", "document": ""}),
        "xlm-roberta": native_model(
            save_xlm_roberta(folder / "xlm"), prompts=nothing, document_length=None, query_expansion=None
        ),
        "bytes": native_model(save_byte_model(folder / "bytes"), prompts=nothing, query_expansion=None),
        "no-mask": MultiVectorEncoder(
            modules=[Transformer(str(save_bert(folder / "plain"))), dense(HIDDEN, 16)], device="cpu"
        ),
    }

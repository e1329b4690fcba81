"""Small page-image retrievers with random weights, of transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from small_models import WORDS, dense
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    ColPaliConfig,
    ColPaliForRetrieval,
    ColPaliProcessor,
    ColQwen2Config,
    ColQwen2ForRetrieval,
    ColQwen2Processor,
    Idefics3Processor,
    ModernVBertConfig,
    ModernVBertModel,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

DIMENSION = 16
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 1024,
}


def tokenizer_with(special: list[str], pad: str, **named: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a model's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, model_max_length=1024, **named)


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_colqwen2(folder: Path) -> Path:
    """Patches by the size of the image, tokens of 2 x 2 patches."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    special.append("<|video_pad|>")
    tokenizer = tokenizer_with(special, "<|endoftext|>", eos_token="<|im_end|>")
    images = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 64 * 40}
    )
    processor = ColQwen2Processor(image_processor=images, tokenizer=tokenizer)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    torch.manual_seed(0)
    config = ColQwen2Config(
        vlm_config={
            "model_type": "qwen2_vl",
            "text_config": {
                **_TEXT,
                "vocab_size": len(tokenizer),
                "num_key_value_heads": 2,
                "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 4], "rope_theta": 10000.0},
                "bos_token_id": 0,
                "eos_token_id": 2,
                "pad_token_id": 0,
            },
            "vision_config": {
                "depth": 1,
                "embed_dim": 32,
                "hidden_size": 32,
                "num_heads": 2,
                "mlp_ratio": 2,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
            "image_token_id": ids["image_pad"],
            "video_token_id": ids["video_pad"],
            "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        },
        embedding_dim=DIMENSION,
        initializer_range=0.1,
    )
    return _save(folder, ColQwen2ForRetrieval(config), processor)


def save_colpali(folder: Path) -> Path:
    """A fixed square of patches."""
    tokenizer = tokenizer_with(["<pad>", "<bos>", "<eos>", "<unk>"], "<pad>", bos_token="<bos>", eos_token="<eos>")
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = ColPaliProcessor(image_processor=images, tokenizer=tokenizer)
    torch.manual_seed(1)
    config = ColPaliConfig(
        vlm_config={
            "model_type": "paligemma",
            "text_config": {
                **_TEXT,
                "model_type": "gemma",
                "vocab_size": len(tokenizer),
                "num_key_value_heads": 1,
                "head_dim": 16,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            },
            "vision_config": {
                **_VISION,
                "model_type": "siglip_vision_model",
                "image_size": 32,
                "patch_size": 8,
                "vision_use_head": False,
            },
            "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
            "vocab_size": len(tokenizer),
            "projection_dim": 32,
            "hidden_size": 32,
        },
        embedding_dim=DIMENSION,
    )
    return _save(folder, ColPaliForRetrieval(config), processor)


CHAT_TEMPLATE = (
    "{% for message in messages %}<|begin_of_text|>{{ message.role }}:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}"
)


def save_modernvbert(folder: Path, keep_only_patches: bool = False) -> Path:
    """A model in sentence-transformers' format with a chat template: tiles of 4 x 4 patches, and a view of all."""
    special = ["<pad>", "<|begin_of_text|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    special += ["<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))]
    tokenizer = tokenizer_with(special, "<pad>", cls_token="<|begin_of_text|>", sep_token="<end_of_utterance>")
    images = Idefics3ImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=16, chat_template=CHAT_TEMPLATE
    )
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(2)
    config = ModernVBertConfig(
        text_config={
            **_TEXT,
            "model_type": "modernbert",
            "vocab_size": len(tokenizer),
            "local_attention": 64,
            **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
        },
        vision_config={**_VISION, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 4},
        image_token_id=image_token,
        pixel_shuffle_factor=2,
        initializer_range=0.1,
    )
    base = _save(folder / "base", ModernVBertModel(config), processor)
    model = MultiVectorEncoder(
        modules=[
            Transformer(str(base)),
            dense(32, DIMENSION, bias=False, activation_function=torch.nn.Identity()),
            MultiVectorMask(keep_only_token_ids=[image_token] if keep_only_patches else None),
            Normalize(module_input_name="token_embeddings"),
        ],
        prompts={"query": "Find the page. ", "document": ""},
        device="cpu",
    )
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


SAVERS = {"colqwen2": save_colqwen2, "colpali": save_colpali, "modernvbert": save_modernvbert}

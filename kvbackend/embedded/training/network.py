"""The network that is trained: its shape, its random start, and the files that it is stored in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..model import MAX_TOKENS
from ..tokenizer import BOS, END, PAD, VOCABULARY

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": MAX_TOKENS,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": BOS,
    "eos_token_id": END,
    "pad_token_id": PAD,
}
# With 1e5 half of the dimensions hardly rotate within 1024 tokens, so that a match does not depend on distance.
ROPE_THETA = 1e5


def build_model(dtype: torch.dtype) -> LlamaForCausalLM:
    """An untrained model with the shipped shape; weights come from torch's global generator."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA})
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype=dtype)


def write_model(model: LlamaForCausalLM, out: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp16, Hugging Face names, tied head left out)."""
    import torch
    from safetensors.torch import save_file

    state = {k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items()}
    state.pop("lm_head.weight", None)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    config = model.config.to_dict()
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "float16"}
    model.config.__class__.from_dict(config).to_json_file(out / "config.json")

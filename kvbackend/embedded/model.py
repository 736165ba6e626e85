"""The embedded language model: a two-layer Llama with 0.6 million parameters, shipped with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ModelError
from .manifest import ASSETS, verify
from .tokenizer import BOS, END, PAD, SPECIALS, VOCABULARY

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MAX_TOKENS = 1024

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
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA})
    return LlamaForCausalLM._from_config(config, attn_implementation="sdpa").to(dtype=dtype)


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


def load_model(
    device: str | torch.device = "cpu", dtype: torch.dtype | None = None, folder: Path = ASSETS
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load the shipped model and tokenizer; never touches the network or torch's global random state.

    Args:
        device: Where to put the weights.
        dtype: Type of the weights, torch.float32 by default; they are stored in fp16.
        folder: Folder with `manifest.json` and the files it lists.

    Returns:
        The model in eval mode without gradients, and its tokenizer as Hugging Face expects one.

    Raises:
        ModelError: A file is absent, altered, or does not fit the others.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    verify(folder, ("config.json", "model.safetensors", "tokenizer.json"))
    try:
        config = LlamaConfig.from_json_file(str(folder / "config.json"))
        with torch.random.fork_rng(devices=[]):
            model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
        missing, unknown = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    except Exception as error:
        raise ModelError(f"embedded model: {folder} cannot be loaded ({error}); reinstall kvroam") from error
    if unknown or set(missing) - {"lm_head.weight"}:
        names = ", ".join([*unknown, *missing][:3])
        raise ModelError(f"embedded model: weights and config.json in {folder} differ ({names}); reinstall kvroam")
    model = model.to(device=device, dtype=torch.float32 if dtype is None else dtype)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=load_tokenizer(folder / "tokenizer.json"),
        bos_token=SPECIALS[BOS],
        eos_token=SPECIALS[END],
        pad_token=SPECIALS[PAD],
        model_max_length=MAX_TOKENS,
    )
    return model.eval().requires_grad_(False), tokenizer


def load_tokenizer(path: Path | None = None) -> Tokenizer:
    """The tokenizer as a `tokenizers.Tokenizer` (needs neither torch nor transformers).

    Raises:
        ModelError: The file is absent or not a tokenizer.
    """
    from tokenizers import Tokenizer

    source = ASSETS / "tokenizer.json" if path is None else path
    try:
        return Tokenizer.from_file(str(source))
    except Exception as error:
        raise ModelError(f"tokenizer: {source} cannot be read ({error}); reinstall kvroam") from error

"""The embedded language model: a two-layer Llama with 0.6 million parameters, shipped with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ModelError
from .manifest import ASSETS, verify
from .tokenizer import BOS, END, PAD, SPECIALS, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MAX_TOKENS = 1024


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
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    verify(folder, ("config.json", "model.safetensors", "tokenizer.json"))
    try:
        config = LlamaConfig.from_json_file(str(folder / "config.json"))
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
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

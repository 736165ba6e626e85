"""Where models come from: the embedded one, or any suitable one by Hugging Face name or path."""

import hashlib
from typing import Any

import torch

from ...errors import ConfigError, ModelError
from ..embedded.model import load_model


def load_network(name: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A causal language model on `device` and its tokenizer.

    Raises:
        ConfigError: torch does not have this device.
        ModelError: the model is absent or damaged.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used by this torch; give 'cpu', or 'cuda' where there is a GPU"
        ) from error
    if name == "embedded":
        return load_model(device, dtype)
    return _from_hub(name, device, dtype)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hex digest of a tokenizer: of its whole definition where it can be serialised, of its vocabulary otherwise."""
    inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
    text = inner.to_str() if hasattr(inner, "to_str") else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _from_hub(name: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
        return model.to(device), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {name!r} cannot be loaded ({reason}); give 'embedded', a name or a folder") from error

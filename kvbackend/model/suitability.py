"""Which models are refused, and why: those whose cached keys and values are wrong once tokens are missing.

A pruned cache is right when every layer sees every stored token, wherever it stands, and when a key's rotation depends
on its own position alone. What the configuration does not tell, `LanguageModel` finds out by comparing logits.
"""

from collections.abc import Iterator
from typing import Any

from ...errors import ModelError

# Rotary variants whose angles depend on the length of the sequence make old keys wrong when the cache grows.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def refuse_unsuitable(name: str, model: Any, config: Any) -> None:
    """Look for anything but full attention over keys with fixed rotations.

    Args:
        name: of the model, for the message.
        model: the network.
        config: of its text decoder.

    Raises:
        ModelError: windows, chunks or other layers that do not see the whole cache; no rotary positions, or rotations
            that change with the length.
    """
    local = _local_attention(model, config)
    if local:
        raise ModelError(
            f"{name} has {local} layers, which mask by stored index and not by position, so pruning them is wrong; "
            "use a model with full attention in every layer"
        )
    ropes = list(_ropes(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)))
    if not ropes and not getattr(config, "rope_theta", None):
        raise ModelError(f"{name} has no rotary positions, so pruned tokens cannot keep theirs; use a model with RoPE")
    for rope in ropes:
        kind = rope.get("rope_type", "default")
        if kind in _LENGTH_DEPENDENT_ROPE:
            raise ModelError(
                f"{name} uses {kind!r} RoPE, whose angles change with the length; use a fixed RoPE scaling"
            )


def _local_attention(model: Any, config: Any) -> str:
    """What keeps layers from seeing the whole cache; empty where nothing does."""
    kinds = getattr(config, "layer_types", None)
    odd = {kind for kind in kinds or [] if kind != "full_attention"}
    if odd:
        return ", ".join(sorted(odd))
    sliding = getattr(config, "sliding_window", None)
    # A window that is configured but switched off, as Qwen2 ships it, shows in layer_types or use_sliding_window.
    if sliding and not kinds and getattr(config, "use_sliding_window", True):
        return f"sliding_window = {sliding}"
    for attribute in ("sliding_window", "attention_chunk_size"):
        for module in model.modules():
            size = getattr(module, attribute, None)
            if isinstance(size, int) and size > 0:
                return f"{attribute} = {size}"
    return ""


def _ropes(parameters: Any) -> Iterator[dict[str, Any]]:
    """The rotary settings of a model, one per kind of layer where they differ."""
    if not parameters:
        return
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    yield from nested or [parameters]

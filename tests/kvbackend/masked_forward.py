"""What a pruned cache must compute, without any cache: one full forward pass under a 4-D mask."""

import numpy as np
import torch


def masked_logits(model, tokens: np.ndarray, stages: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Logits float64 [S, vocab] of a script whose session was pruned several times.

    Args:
        model: a causal LM with eager attention.
        tokens: int [S].
        stages: (n, kept) in order: rows from n on see, of the tokens before n, only the positions in `kept`.
    """
    size = len(tokens)
    visible = np.tri(size, dtype=bool)
    for start, kept in stages:
        visible[start:, :start] = np.isin(np.arange(start), kept)
    mask = torch.zeros(1, 1, size, size).masked_fill(torch.from_numpy(~visible), torch.finfo(torch.float32).min)
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(tokens)[None], attention_mask=mask, use_cache=False)
    return out.logits[0].double().numpy()


def per_head_logits(model, tokens: np.ndarray, stages: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """As `masked_logits`, but each stage keeps positions [k, L, Hkv]: every layer and head has a mask of its own."""
    size, heads, handles = len(tokens), model.config.num_attention_heads, []
    for number, layer in enumerate(model.model.layers):
        visible = np.tri(size, dtype=bool)[None].repeat(heads, 0)
        for start, lists in stages:
            for head in range(heads):
                kept = lists[:, number, head * lists.shape[2] // heads]
                visible[head, start:, :start] = np.isin(np.arange(start), kept)
        mask = torch.zeros(1, heads, size, size).masked_fill(torch.from_numpy(~visible), torch.finfo(torch.float32).min)

        def use(module, arguments, keywords, mask=mask):
            return arguments, {**keywords, "attention_mask": mask}

        handles.append(layer.self_attn.register_forward_pre_hook(use, with_kwargs=True))
    try:
        with torch.no_grad():
            return model(input_ids=torch.from_numpy(tokens)[None], use_cache=False).logits[0].double().numpy()
    finally:
        for handle in handles:
            handle.remove()


def kl(full: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """KL(full || degraded) per row [nats]."""
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (full, degraded))
    return (np.exp(p) * (p - q)).sum(-1)


def js(full: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence per row [nats]."""
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (full, degraded))
    m = np.logaddexp(p, q) - np.log(2.0)
    return 0.5 * (np.exp(p) * (p - m)).sum(-1) + 0.5 * (np.exp(q) * (q - m)).sum(-1)


def nll(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row's target [nats]."""
    logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -logs[np.arange(len(targets)), targets]

"""Sample the texts that sessions stream: `python -m kvroam.kvbackend.embedded.training.sample`.

Scripts need the same text on every machine and Python version, and the standard library's text is not ours to
ship. A session's text comes from its model anyway, so the model writes it, once.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....commands import Command, add_seed
from ....errors import ModelError
from ..manifest import ASSETS, read_manifest, write_manifest
from ..model import MAX_TOKENS, load_model
from ..tokenizer import BOS, SPECIALS, VOCABULARY

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def sample_texts(
    model: LlamaForCausalLM, documents: int, length: int, temperature: float, seed: int, top: float = 0.9
) -> np.ndarray:
    """Sample documents, all at once, from `<bos>` on; special tokens are never drawn.

    Args:
        model: Model in eval mode.
        documents: Number of documents B.
        length: Tokens per document, at most MAX_TOKENS - 1.
        temperature: Divides the logits; below 1 makes likely tokens likelier.
        seed: Seed of the uniform numbers.
        top: Draw among the likeliest tokens that together have this probability.

    Returns:
        uint16 [B, length].

    Raises:
        ModelError: `length` exceeds what the model can read.
    """
    import torch

    if not 0 < length < MAX_TOKENS:
        raise ModelError(f"sample: length {length} is outside 1..{MAX_TOKENS - 1}; choose a shorter document")
    draws = np.random.default_rng(seed).random((length, documents))
    found = np.zeros((documents, length), np.uint16)
    guards = [LoopGuard() for _ in range(documents)]
    with torch.inference_mode():
        step = model(input_ids=torch.full((documents, 1), BOS), use_cache=True)
        for i in range(length):
            logits = step.logits[:, -1].double() / temperature
            logits[:, : len(SPECIALS)] = -torch.inf
            for row, guard in enumerate(guards):
                logits[row, guard.banned()] = -torch.inf
            share, token = torch.softmax(logits, -1).sort(dim=-1, descending=True, stable=True)
            share[share.cumsum(-1) - share >= top] = 0.0
            # Inverse transform sampling: the numbers come from numpy, so a seed means the same in every torch.
            reach = share.cumsum(-1)
            place = torch.searchsorted(reach, torch.from_numpy(draws[i])[:, None] * reach[:, -1:], right=True)
            chosen = token.gather(-1, place.clamp(max=VOCABULARY - 1))
            found[:, i] = chosen[:, 0].numpy()
            for guard, drawn in zip(guards, chosen[:, 0].tolist(), strict=True):
                guard.add(drawn)
            step = model(input_ids=chosen, past_key_values=step.past_key_values, use_cache=True)
    return found


class LoopGuard:
    """Which tokens would repeat what a document has just said.

    A small model that copies well falls into loops when it reads its own text. So no four tokens occur twice in a
    document, and no two tokens twice within NEAR tokens.
    """

    NEAR = 24

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.followers: dict[tuple[int, ...], list[int]] = {}

    def banned(self) -> list[int]:
        """Token ids that may not come next."""
        if not self.tokens:
            return []
        recent = self.tokens[-self.NEAR - 1 :]
        near = [b for a, b in itertools.pairwise(recent) if a == recent[-1]]
        return near + self.followers.get(tuple(self.tokens[-3:]), [])

    def add(self, token: int) -> None:
        """Note the token that was drawn."""
        if len(self.tokens) >= 3:
            self.followers.setdefault(tuple(self.tokens[-3:]), []).append(token)
        self.tokens.append(token)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--folder", type=Path, default=ASSETS, help="folder of the assets")
    parser.add_argument("--documents", type=int, default=96)
    parser.add_argument("--length", type=int, default=MAX_TOKENS - 1)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top", type=float, default=0.9, help="draw among the likeliest tokens of this probability")
    add_seed(parser, 1, "of the draws")


def execute(args: argparse.Namespace) -> None:
    """Write `texts.npz` and renew the manifest."""
    model, tokenizer = load_model(folder=args.folder)
    texts = sample_texts(model, args.documents, args.length, args.temperature, args.seed, args.top)
    np.savez_compressed(args.folder / "texts.npz", texts=texts)
    made = read_manifest(args.folder).get("made", {})
    chosen = {"documents": args.documents, "length": args.length, "temperature": args.temperature, "top": args.top}
    write_manifest(args.folder, {**made, "texts": {**chosen, "seed": args.seed}})
    print(tokenizer.decode(texts[0][:200].tolist()))


command = Command("python -m kvroam.kvbackend.embedded.training.sample", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())

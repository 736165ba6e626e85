"""Milliseconds of the KV backend inside an RL loop: `python -m kvroam.benchmarks.kv [--model embedded|random]`.

Prints the median over repeats of one `advance` by 1-3 tokens for 1, 8 and 32 degraded sessions with caches of
50-600 tokens, of one `migrate`, and of one prefill.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def median_ms(action: Callable[[], object], repeats: int) -> float:
    """Median wall time of `action` [ms], after three calls that are not counted."""
    for _ in range(3):
        action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def make_backend(model: str, device: str | None):
    """The embedded model's backend, or one on a random Llama of the embedded model's size."""
    from kvroam.kvbackend import KVBackend

    if model != "random":
        return KVBackend.load(model, device)
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    network: Any = LlamaForCausalLM(config)
    return KVBackend(network.to(device or "cpu"))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random", help="random, embedded, or a Hugging Face name or path")
    parser.add_argument("--device", default=None)
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()

    from kvroam.kvbackend import TransferPlan

    backend = make_backend(args.model, args.device)
    rng = np.random.default_rng(0)
    scripts = [rng.integers(0, backend.llm.vocab, 1000) for _ in range(64)]
    start = time.perf_counter()
    references = backend.references(scripts)
    print(f"prefill 1000 tokens, batched        {(time.perf_counter() - start) / 64 * 1e3:8.2f} ms per script")

    for count in (1, 8, 32, 60):
        lengths = rng.integers(100, 800, count)
        sessions = [backend.open(references[i], int(n)) for i, n in enumerate(lengths)]
        backend.migrate(sessions, [TransferPlan(keep=float(k)) for k in rng.uniform(0.3, 0.9, count)])
        kept = int(np.mean([len(s.positions) for s in sessions]))

        def step(sessions=sessions, count=count) -> None:
            backend.advance(sessions, rng.integers(1, 4, count))

        print(f"advance {count:3d} degraded ({kept} kept)      {median_ms(step, args.repeats):8.2f} ms per call")

    whole = [backend.open(references[i % 64], 100) for i in range(256)]
    idle_ms = median_ms(lambda: backend.advance(whole, [2] * 256), args.repeats)
    print(f"advance 256 whole                   {idle_ms:8.2f} ms per call")

    plans = {
        "keep 1, 16 bit": TransferPlan(),
        "keep .5, 16 bit": TransferPlan(keep=0.5),
        "keep .5, 8 bit": TransferPlan(keep=0.5, bits=8),
        "keep .5, 4 bit": TransferPlan(keep=0.5, bits=4),
        "prefix 300, keep .5, 8 bit": TransferPlan(keep=0.5, bits=8, prefix_tokens=300),
    }
    for name, plan in plans.items():

        def move(plan=plan) -> None:
            session = backend.open(references[0], 600)
            backend.migrate([session], [plan])
            backend.close(session)

        print(f"migrate 600 tokens, {name:26s} {median_ms(move, args.repeats):6.2f} ms")


if __name__ == "__main__":
    main()

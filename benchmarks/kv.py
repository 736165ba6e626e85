"""Speed of the KV backend: `python -m kvroam.benchmarks.kv [--json FILE] [--threads 1 2] [--cuda-7b]`.

Every ratio compares two things that were timed in turn, in one run, so that other load on the machine hits both.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from kvroam import commands
from kvroam.compat import attention_of
from kvroam.errors import ConfigError
from kvroam.evaluation.provenance import machine, versions
from kvroam.files import write_whole
from kvroam.threads import torch_threads

Row = dict[str, Any]  # part, case, threads, value, unit, target ("" where there is none)
PARTS = ["codec", "prefill", "handover", "steps", "wide"]
RANKING: dict[str, Any] = {"scorer": "window", "scope": "sequence"}  # cheap, so that what is timed is the rest
CODEC_SHAPE = (1024, 28, 4, 128)  # tokens, layers, KV heads, head dimension: 59 MB, as in Qwen2.5-7B


_clock = ["wall"]


def use_clock(name: str) -> None:
    """Measure by "wall" time, or by the "cpu" time of all threads, which others on the machine disturb less."""
    _clock[0] = name


def _now() -> float:
    return time.process_time() if _clock[0] == "cpu" else time.perf_counter()


def in_turn(actions: Sequence[Callable[[], object]], repeats: int, device: str = "cpu") -> list[float]:
    """Least time of each action [s], by the clock of `use_clock`; they take turns, and the first is not counted."""
    import torch

    times = np.full((repeats + 1, len(actions)), np.inf)
    for i in range(repeats + 1):
        for j, action in enumerate(actions):
            began = _now()
            action()
            if device != "cpu":
                torch.cuda.synchronize()
            times[i, j] = _now() - began
    return times[1:].min(0).tolist()


def codec_rows(repeats: int, shape: tuple[int, int, int, int] = CODEC_SHAPE) -> list[Row]:
    """Pack and unpack of one large cache against copying it, to memory that is used again and to fresh memory."""
    import torch

    from kvroam.kvbackend.codecs import payload as codec
    from kvroam.kvbackend.codecs.header import Expected, Header

    count, layers, heads, dim = shape
    kv = torch.randn(count, layers, 2, heads, dim, generator=torch.Generator().manual_seed(0)).half()
    numbers, positions = kv.view(torch.int16).numpy(), np.arange(count)
    expected, twin, rows = Expected("", "", layers, heads, dim), np.empty_like(numbers), torch.empty_like(kv)
    size, found = kv.nbytes / 1e9, []
    for bits, name in ((16, "fp16"), (8, "int8"), (4, "int4"), (2, "int2")):
        header = Header("", "", "", count, 0, count, bits, "float16", layers, heads, dim, 1.0, count)
        blob = bytearray(codec.payload_bytes(header))
        actions: list[Callable[[], object]] = [
            lambda: np.copyto(twin, numbers),
            partial(codec.pack_into, blob, header, positions, kv),
            partial(codec.unpack, blob, expected, torch.float16, out=rows),
            lambda: bytearray(numbers),
            partial(codec.pack, header, positions, kv),
            partial(codec.unpack, blob, expected, torch.float16),
        ]
        copy, pack, unpack, fresh_copy, fresh_pack, fresh_unpack = in_turn(actions, repeats)
        target = ">= 50 %" if bits == 16 else ""
        for what, spent, against in (
            ("pack", pack, copy),
            ("unpack", unpack, copy),
            ("pack, fresh memory", fresh_pack, fresh_copy),
            ("unpack, fresh memory", fresh_unpack, fresh_copy),
        ):
            least = ">= 3" if bits > 2 and "fresh" not in what else ""  # fresh memory itself is slower than that
            found.append(row("codec", f"{name} {what}", size / spent, "GB/s of fp16 cache", least))
            found.append(row("codec", f"{name} {what} / memcpy", 100 * against / spent, "%", target))
    return [row("codec", "memcpy", size / copy, "GB/s"), *found]


def prefill_rows(backend, repeats: int, batch: int = 8, length: int = 512) -> list[Row]:
    """Prefill tokens/s against a matrix multiplication of 512 x 512, where all of the time would be arithmetic."""
    import torch

    from kvroam.kvbackend.model import lean

    llm = backend.llm
    rng = np.random.default_rng(0)
    scripts = [rng.integers(0, llm.vocab, length) for _ in range(batch)]
    matrix = torch.randn(512, 512, dtype=llm.dtype, device=llm.device)
    weights = [module.weight for module in llm.base.modules() if isinstance(module, torch.nn.Linear)]
    tokens = torch.randn(batch * length, 1, dtype=llm.dtype, device=llm.device)
    inputs = [tokens.expand(-1, weight.shape[1]).contiguous() for weight in weights]
    with torch.inference_mode():
        layer = torch.nn.Linear(512, 512, bias=False, dtype=llm.dtype, device=llm.device)
    prefill, square, fastest, linear = in_turn(
        [
            lambda: llm.prefill(scripts),
            lambda: [matrix @ matrix for _ in range(8)],
            lambda: [lean.linear(matrix, layer) for _ in range(8)],
            lambda: [x @ weight.T for x, weight in zip(inputs, weights, strict=True)],
        ],
        repeats,
        llm.device.type,
    )
    shape = llm.geometry
    attention = 2 * length * shape.layers * shape.heads * shape.head_dim  # causal: half of 4 S per number
    needed = batch * length * (2 * sum(weight.numel() for weight in weights) + attention)
    rate = 8 * 2 * 512**3 / square
    return [
        row("prefill", f"{batch} x {length}", batch * length / prefill, "tokens/s"),
        row("prefill", "matmul 512 x 512", rate / 1e9, "GFLOP/s"),
        row("prefill", "of the matmul roofline", 100 * needed / rate / prefill, "%", ">= 70 %"),
        row("prefill", "oneDNN 512 x 512", 8 * 2 * 512**3 / fastest / 1e9, "GFLOP/s"),
        row("prefill", "of the oneDNN roofline", 100 * needed / (8 * 2 * 512**3 / fastest) / prefill, "%"),
        row("prefill", "its own linear layers alone, by matmul", 100 * linear / prefill, "% of prefill"),
    ]


def handover_rows(
    backend, repeats: int, part: str = "handover", batches: Sequence[int] = (1, 8, 16, 32), horizon: int = 32
) -> list[Row]:
    """Migrate and measure, against the one forward pass on a cache of that length that the measurement contains.

    That pass feeds `horizon` tokens per session and computes their logits, as transformers does it ("plain") and as
    kvroam does it ("own"). The pass on the whole cache is not in it: a script's reference is computed once, beforehand.
    """
    import torch
    from transformers import DynamicCache

    from kvroam.kvbackend import TransferPlan

    llm = backend.llm
    rng = np.random.default_rng(0)
    found = []
    model, implementation = llm.model, attention_of(llm.model)
    context = 512
    for batch in batches:
        length = context + horizon
        references = backend.references([rng.integers(0, llm.vocab, length) for _ in range(batch)])
        ids = torch.from_numpy(np.stack([r.tokens[context:] for r in references]).astype(np.int64)).to(llm.device)
        positions = torch.arange(context, length, device=llm.device)[None].expand(batch, -1)
        kept = round(0.5 * context)
        shape = llm.geometry
        keys = torch.zeros(shape.layers, 2, batch, shape.kv_heads, kept, shape.head_dim, dtype=llm.dtype)
        stored = [(layer[0], layer[1]) for layer in keys.to(llm.device)]
        sessions: list[Any] = []

        def migrate(references=references, batch=batch, sessions=sessions) -> None:
            sessions[:] = [backend.open(reference, context) for reference in references]
            backend.migrate(sessions, [TransferPlan(keep=0.5)] * batch)

        @torch.inference_mode()
        def plain(ids=ids, positions=positions, stored=stored) -> None:
            model.set_attn_implementation("sdpa")  # transformers' own path, without kvroam's cache
            cache = DynamicCache([(k.clone(), v.clone()) for k, v in stored])
            model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
            model.set_attn_implementation(implementation)

        def own(references=references, sessions=sessions) -> None:
            words = [reference.tokens[context:] for reference in references]
            block = llm.extend([session.kv for session in sessions], [context] * len(words), words)
            llm.logits(block.hidden.flatten(0, 1))

        measure, short = partial(backend.measure, sessions, horizon), partial(backend.measure, sessions, 8)
        actions: list[Callable[[], object]] = [migrate, measure, plain, own, short]
        moved, measured, forward, ours, brief = in_turn(actions, repeats, llm.device.type)
        case, target = f"batch {batch}", "<= 1.3" if batch >= 16 else ""
        both = moved + measured
        found += [
            row(part, f"{case}: migrate, keep .5, fp16, {context} tokens", moved / batch * 1e3, "ms/session"),
            row(part, f"{case}: measure {horizon} tokens", measured / batch * 1e3, "ms/session"),
            row(part, f"{case}: plain forward", forward / batch * 1e3, "ms/session"),
            row(part, f"{case}: own forward", ours / batch * 1e3, "ms/session"),
            row(part, f"{case}: (migrate + measure) / plain forward", both / forward, "x", target),
            row(part, f"{case}: (migrate + measure) / own forward", both / ours, "x"),
        ]
        if batch == 8:
            spent = (moved + brief) / batch * 1e3
            found.append(row(part, f"{case}: migrate + measure 8 tokens", spent, "ms/session", "< 4"))
    return found


def steps_rows(backend, repeats: int, batch: int = 16, context: int = 512, horizon: int = 32) -> list[Row]:
    """The parts of one handover, each on its own; they add up to less than the whole, which also keeps accounts."""
    import torch

    from kvroam.kvbackend import TransferPlan
    from kvroam.kvbackend.codecs import checksum
    from kvroam.kvbackend.codecs import payload as codec
    from kvroam.kvbackend.handover import transfer
    from kvroam.kvbackend.handover.selection import select_rows
    from kvroam.kvbackend.model.divergence import divergences
    from kvroam.kvbackend.scorers.view import View

    llm, settings = backend.llm, backend.settings
    rng = np.random.default_rng(0)
    references = backend.references([rng.integers(0, llm.vocab, context + horizon) for _ in range(batch)])
    sessions = [backend.open(reference, context) for reference in references]
    words = [reference.tokens[context:] for reference in references]

    @torch.inference_mode()
    def rank() -> list[np.ndarray]:
        return [settings.ranking.score(View(session, context, llm.scaling)) for session in sessions]

    def select() -> list[np.ndarray]:
        guards = settings.sinks, settings.recent
        return [select_rows(s, x.positions, 0, context, 0.5, *guards) for s, x in zip(scores, sessions, strict=True)]

    scores, plan = rank(), TransferPlan(keep=0.5)
    rows = [torch.from_numpy(chosen).to(llm.device) for chosen in select()]
    blobs = [backend.encode(session, plan) for session in sessions]
    wire = [codec.Decoder(codec.Expected(llm.fingerprint, backend.tokenizer_fingerprint, *_shape(llm))) for _ in blobs]
    headers = [codec.feed_header(decoder, blob) for decoder, blob in zip(wire, blobs, strict=True)]
    places = [decoder.positions for decoder in wire]
    kept = [session.kv[index] for session, index in zip(sessions, rows, strict=True)]
    hidden = torch.cat([reference.hidden[context:] for reference in references])
    targets = torch.zeros(len(hidden), dtype=torch.int64, device=llm.device)
    logits = llm.logits(hidden)

    def encode() -> None:
        for header, where, session, index in zip(headers, places, sessions, rows, strict=True):
            codec.pack(header, where, session.kv, index)

    def decode() -> None:
        for blob, reference in zip(blobs, references, strict=True):
            transfer.receive(llm, backend.tokenizer_fingerprint, blob, reference, lambda _: None)

    def restore() -> None:
        for session in [backend.restore(*pair) for pair in zip(blobs, references, strict=True)]:
            backend.close(session)

    parts: dict[str, Callable[[], object]] = {
        "rank": rank,
        "select": select,
        "encode, checksums included": encode,
        "checksums alone": lambda: [checksum.xxh3(blob) for blob in blobs],
        "decode, checksums included": decode,
        "decode and restore": restore,
        "forward through the layers": lambda: llm.extend(kept, [context] * batch, words),
        "logits of one cache": lambda: llm.logits(hidden),
        "compare": lambda: divergences(logits, logits, targets),
    }
    times = in_turn(list(parts.values()), repeats, llm.device.type)
    return [row("steps", name, spent / batch * 1e3, "ms/session") for name, spent in zip(parts, times, strict=True)]


def _shape(llm) -> tuple[int, int, int]:
    return llm.geometry.layers, llm.geometry.kv_heads, llm.geometry.head_dim


def row(part: str, case: str, value: float, unit: str, target: str = "") -> Row:
    """One line of the table, at the number of threads that torch has now."""
    import torch

    return dict(part=part, case=case, threads=torch.get_num_threads(), value=float(value), unit=unit, target=target)


def embedded_backend(device: str | None):
    """The embedded model, with measurements that are not remembered."""
    import torch

    from kvroam.kvbackend import KVBackend, KVSettings
    from kvroam.kvbackend.embedded.model import load_model

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return KVBackend(load_model(device, torch.float32)[0], settings=KVSettings(**RANKING), memo=False)


def wide_backend(device: str | None):
    """A random model of 4 layers of 512 columns, where the forward pass outweighs the rest, as on real hardware."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kvroam.kvbackend import KVBackend, KVSettings

    config = LlamaConfig(
        vocab_size=2048, hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = LlamaForCausalLM(config)
    return KVBackend(model.to(device), settings=KVSettings(**RANKING), memo=False)


def seven_b_rows(device: str, contexts: Sequence[int], sessions: int, repeats: int, tiny: bool = False) -> list[Row]:
    """A random-weight model in the shape of Qwen2.5-7B in bf16: move caches through bytes, measure what it did.

    Sessions are handled in groups of eight: the queries that saliency needs take 200 kB per token in this shape.

    Args:
        tiny: two narrow layers instead, to try the code where there is no such GPU.
    """
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    from kvroam.kvbackend import KVBackend, KVSettings, TransferPlan

    width, layers = (64, 2) if tiny else (3584, 28)
    config = Qwen2Config(
        vocab_size=2048 if tiny else 152064, hidden_size=width, intermediate_size=3 * width if tiny else 18944,
        num_hidden_layers=layers, num_attention_heads=4 if tiny else 28, num_key_value_heads=2 if tiny else 4,
        max_position_embeddings=32768,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    backend = KVBackend(
        model, settings=KVSettings(**RANKING), cache_dtype=torch.bfloat16, memory_bytes=100 << 30, memo=False
    )
    rng, found, horizon, group = np.random.default_rng(0), [], 32, min(8, sessions)
    for context in contexts:
        spent = {"copy": 0.0, "migrate": 0.0, "measure": 0.0, "forward": 0.0}
        moved = 0
        for _ in range(-(-sessions // group)):
            refs = backend.references([rng.integers(0, backend.llm.vocab, context + horizon) for _ in range(group)])
            opened: list[Any] = []

            def migrate(refs=refs, opened=opened, context=context) -> None:
                opened[:] = [backend.open(reference, context) for reference in refs]
                backend.migrate(opened, [TransferPlan(keep=0.5)] * len(refs))

            def forward(refs=refs, opened=opened, context=context) -> None:
                words = [reference.tokens[context:] for reference in refs]
                block = backend.llm.extend([session.kv for session in opened], [context] * len(refs), words)
                backend.llm.logits(block.hidden[:, -1])

            def copy(refs=refs) -> None:
                _ = [reference.kv.clone() for reference in refs]

            actions: list[Callable[[], object]] = [copy, migrate, partial(backend.measure, opened, horizon), forward]
            for name, seconds in zip(spent, in_turn(actions, repeats, device), strict=True):
                spent[name] += seconds
            moved += sum(reference.kv[:context].nbytes for reference in refs)
            for session in opened:
                backend.close(session)
        both = spent["migrate"] + spent["measure"]
        name = f"{sessions} sessions of {context}"
        found += [
            row("7b", f"{name}: prune + pack + unpack + restore, keep .5", moved / spent["migrate"] / 1e9, "GB/s"),
            row("7b", f"{name}: device copy", moved / spent["copy"] / 1e9, "GB/s"),
            row("7b", f"{name}: (migrate + measure {horizon}) / forward", both / spent["forward"], "x"),
        ]
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned."""
    wide = max(len(r["case"]) for r in rows)
    lines = [f"{'':8s} {'':{wide}s} threads      value unit"]
    for r in rows:
        target = f"  (target {r['target']})" if r["target"] else ""
        lines.append(f"{r['part']:8s} {r['case']:{wide}s} {r['threads']:7d} {r['value']:10.4g} {r['unit']}{target}")
    return "\n".join(lines)


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    commands.add_json(parser)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="torch threads (default: 1 2)")
    parser.add_argument("--parts", nargs="+", default=PARTS, help=" ".join(PARTS))
    parser.add_argument("--repeats", type=int, default=7, help="turns; the best one counts (default: %(default)s)")
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: where others use the machine")
    parser.add_argument("--device", help="torch device of the model (default: a GPU where there is one)")
    parser.add_argument("--cuda-7b", action="store_true", help="the shape of Qwen2.5-7B instead, on a GPU of 80 GB")
    parser.add_argument("--contexts", nargs="+", type=int, default=[2048, 4096, 8192], help="of --cuda-7b [tokens]")
    parser.add_argument("--sessions", type=int, default=64, help="of --cuda-7b")
    parser.add_argument("--tiny", action="store_true", help="a tiny model instead of 7B, to try --cuda-7b on a CPU")


def execute(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    import torch

    if min(args.repeats, args.sessions, *args.threads, *args.contexts) < 1:
        raise ConfigError("--repeats, --sessions, --threads and --contexts count from 1; raise the one that is below")
    if args.cuda_7b and not args.tiny and not torch.cuda.is_available():
        raise ConfigError("--cuda-7b needs a GPU, and this torch sees none; add --tiny to try the code on the CPU")
    rows: list[Row] = []
    if args.cuda_7b:
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        rows = seven_b_rows(device, args.contexts, args.sessions, args.repeats, args.tiny)
    else:
        parts = {
            "codec": lambda: codec_rows(args.repeats),
            "prefill": lambda: prefill_rows(embedded_backend(args.device), args.repeats),
            "handover": lambda: handover_rows(embedded_backend(args.device), args.repeats),
            "steps": lambda: steps_rows(embedded_backend(args.device), args.repeats),
            "wide": lambda: handover_rows(wide_backend(args.device), args.repeats, "wide", (16,)),
        }
        unknown = [name for name in args.parts if name not in parts]
        if unknown:
            raise ConfigError(f"part {unknown[0]!r} does not exist; use some of {', '.join(parts)}")
        use_clock(args.clock)
        for threads in args.threads:
            with torch_threads(threads):
                rows += [r for name in args.parts for r in parts[name]()]
    print(table(rows))
    if args.json:
        text = json.dumps({"rows": rows, "machine": machine(), "versions": versions()}, indent=1) + "\n"
        write_whole(args.json, lambda draft: draft.write_text(text, encoding="utf-8"))


command = commands.Command("python -m kvroam.benchmarks.kv", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())

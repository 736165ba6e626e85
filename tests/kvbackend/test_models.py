"""Every supported architecture against uncached forward passes, and the refusal of those that cannot be pruned."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from kvroam.compat import attention_of
from kvroam.errors import ModelError, PayloadError
from kvroam.kvbackend import SCORERS, KVBackend, TransferPlan
from kvroam.kvbackend.scorers.view import View

from .masked_forward import kl, masked_logits, per_head_logits
from .plain import PLAIN

VOCAB = 256
SHAPE = dict(
    vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.12, tie_word_embeddings=False,
)  # fmt: skip
ARCHITECTURES = {
    "Llama": {},
    "Llama-fixed-scaling": dict(
        rope_parameters=dict(
            rope_type="llama3", rope_theta=1e4, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=128,
        )
    ),
    "Llama-one-kv-head-per-head": dict(num_key_value_heads=4),
    "Qwen2": {},
    "Qwen2-yarn": dict(
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=128)
    ),
    "Qwen3": dict(head_dim=32),
    "Mistral": dict(sliding_window=None),
    "Phi3": dict(pad_token_id=0),
}  # fmt: skip


def build(name: str, **changes):
    """A random model of this architecture, attentive enough that pruning matters."""
    family = name.split("-")[0]
    config = getattr(transformers, f"{family}Config")(**(SHAPE | ARCHITECTURES.get(name, {}) | changes))
    torch.manual_seed(3)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param


@pytest.fixture(params=list(ARCHITECTURES))
def network(request):
    return build(request.param)


def eager(network):
    """The same weights with transformers' own eager attention, on the CPU in float32."""
    twin = copy.deepcopy(network).float()
    twin.set_attn_implementation("eager")
    return twin


def script(size: int = 160, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_cache_travels_bitwise(network, device, dtype):
    backend = KVBackend(network.to(device, dtype), "tok", settings=PLAIN, cache_dtype=dtype)
    session = backend.open(script(), 120)
    plan = TransferPlan(bits=32 if dtype == torch.float32 else 16)
    restored = backend.restore(backend.encode(session, plan), session.reference)
    assert restored.whole and torch.equal(restored.kv, session.kv)
    tokens = [script()[120:130]]
    ours = backend.llm.extend([session.kv], [120], tokens).hidden
    theirs = backend.llm.extend([restored.kv.clone()], [120], tokens).hidden
    assert torch.equal(ours, theirs)
    drift = backend.advance([restored], [30])
    assert drift.kl[0] == 0.0 and drift.matches[0] == 30


def test_a_pruned_cache_equals_the_masked_full_forward(network, device):
    oracle = eager(network)
    backend = KVBackend(network.to(device), settings=PLAIN, cache_dtype=torch.float32)
    tokens = script()
    session = backend.open(tokens, 110)
    assert len(session.reference.kv) == 160
    full = masked_logits(oracle, tokens, [])
    with torch.inference_mode():
        whole = backend.llm.logits(session.reference.hidden).cpu().numpy()
    backend.migrate([session], [TransferPlan(keep=0.3, bits=32)])
    degraded = masked_logits(oracle, tokens, [(110, session.positions)])[110:150]
    block = backend.llm.extend([session.kv], [110], [tokens[110:150]])
    with torch.inference_mode():
        ours = backend.llm.logits(block.hidden[0]).cpu().numpy()
    drift = backend.advance([session], [40])
    assert kl(full[110:150], degraded).mean() > 0.005
    assert np.abs(whole - full).max() <= 1e-5 * max(1.0, np.abs(full).max())
    assert np.abs(ours - degraded).max() <= 1e-5 * max(1.0, np.abs(degraded).max())
    assert drift.kl[0] / 40 == pytest.approx(kl(full[110:150], degraded).mean(), abs=1e-5)


def test_ragged_batches_equal_one_by_one(network, device):
    backend = KVBackend(network.to(device), settings=PLAIN, cache_dtype=torch.float32)
    scripts, lengths, counts = [script(n, n) for n in (60, 160, 110)], (40, 130, 90), [7, 2, 11]
    plans = [TransferPlan(keep=k, bits=32) for k in (0.6, 0.2, 0.9)]
    together = [backend.open(s, n) for s, n in zip(scripts, lengths, strict=True)]
    alone = [backend.open(s, n) for s, n in zip(scripts, lengths, strict=True)]
    backend.migrate(together, plans)
    batch = backend.advance(together, counts)
    for i, session in enumerate(alone):
        backend.migrate([session], [plans[i]])
        single = backend.advance([session], [counts[i]])
        assert np.array_equal(session.positions, together[i].positions)
        assert batch.kl[i] == pytest.approx(single.kl[0], abs=1e-5)
        assert torch.allclose(session.kv, together[i].kv, atol=1e-5)


def test_lists_per_head_equal_the_per_head_oracle(network, device):
    oracle = eager(network)
    backend = KVBackend(network.to(device), settings=replace(PLAIN, scope="head"), cache_dtype=torch.float32)
    tokens = script()
    session = backend.open(tokens, 100)
    backend.watch(session)
    stages = []
    for prefix, count in ((0, 20), (30, 20)):
        backend.migrate([session], [TransferPlan(keep=0.5, bits=32, prefix_tokens=prefix)])
        stages.append((session.length, session.positions.copy()))
        drift = backend.advance([session], [count])
        rows = slice(session.length - count, session.length)
        degraded, full = per_head_logits(oracle, tokens, stages)[rows], masked_logits(oracle, tokens, [])[rows]
        assert drift.kl[0] / count == pytest.approx(kl(full, degraded).mean(), abs=1e-5)


@pytest.mark.parametrize("name", list(SCORERS))
def test_scores_on_the_device_equal_those_of_eager_attention(device, name):
    """On every device the window is eager attention's; the other scorers agree with the CPU's."""
    tokens, network = script(), build("Qwen3")
    with torch.no_grad():
        attention = eager(network)(torch.from_numpy(tokens[:90])[None], output_attentions=True).attentions
    backend = KVBackend(network.to(device), settings=replace(PLAIN, scorer=name), cache_dtype=torch.float32)
    reference = KVBackend(build("Qwen3"), settings=replace(PLAIN, scorer=name), cache_dtype=torch.float32)
    session, twin = backend.open(tokens, 90), reference.open(tokens, 90)
    scores = SCORERS[name]().score(View(session, 90, backend.llm.scaling, backend.settings.scope, backend.llm))
    expected = SCORERS[name]().score(View(twin, 90, reference.llm.scaling, reference.settings.scope, reference.llm))
    if name == "window-raw":
        expected = torch.stack(attention)[:, 0, :, 58:].mean((0, 1)).sum(0).numpy()
    assert scores == pytest.approx(expected, abs=1e-5)


def test_bfloat16_weights_stay_within_their_own_noise(network, device):
    """The pruned bf16 model is as far from the float32 oracle as the unpruned bf16 model is."""
    network = network.bfloat16()
    oracle = eager(network)
    backend = KVBackend(network.to(device), settings=PLAIN, cache_dtype=torch.bfloat16)
    tokens = script()
    session = backend.open(tokens, 110)
    with torch.inference_mode():
        whole = backend.llm.logits(session.reference.hidden[110:150]).cpu().numpy()
    noise = np.abs(whole - masked_logits(oracle, tokens, [])[110:150]).mean()
    backend.migrate([session], [TransferPlan(keep=0.5)])
    block = backend.llm.extend([session.kv], [110], [tokens[110:150]])
    with torch.inference_mode():
        ours = backend.llm.logits(block.hidden[0]).cpu().numpy()
    degraded = masked_logits(oracle, tokens, [(110, session.positions)])[110:150]
    assert np.abs(whole - ours).mean() > 2 * noise
    assert np.abs(ours - degraded).mean() < 2 * noise


def refused(name: str, **changes) -> str:
    with pytest.raises(ModelError) as caught:
        KVBackend(build(name, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("Mistral", dict(sliding_window=16), "sliding_window = 16"),
        ("Qwen2", dict(use_sliding_window=True, sliding_window=16, max_window_layers=1), "sliding_attention"),
        ("Qwen3", dict(use_sliding_window=True, sliding_window=16, max_window_layers=2), "sliding_attention"),
        ("Gemma2", dict(sliding_window=16, head_dim=16), "sliding_attention"),
        ("Gemma3", dict(sliding_window=16, head_dim=16), "sliding_attention"),
        ("Llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)), "'dynamic' RoPE"),
        (
            "Phi3",
            dict(
                pad_token_id=0, original_max_position_embeddings=64,
                rope_parameters=dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.0] * 8,
                                     long_factor=[2.0] * 8, original_max_position_embeddings=64),
            ),
            "'longrope' RoPE",
        ),
    ],
)  # fmt: skip
def test_models_that_cannot_be_pruned_are_refused_with_the_reason(name, changes, reason):
    if name == "Gemma3":
        torch.manual_seed(0)
        model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**(SHAPE | changes)))
        with pytest.raises(ModelError, match=reason):
            KVBackend(model)
    else:
        assert reason in refused(name, **changes)


def test_logits_that_are_more_than_the_head_are_found_out_and_attention_is_put_back():
    """Granite divides its logits, which no list of layer types tells: only the comparison of logits can."""
    model = build("Granite", logits_scaling=3.0)
    before = attention_of(model)
    with pytest.raises(ModelError, match="logits differ"):
        KVBackend(model)
    assert attention_of(model) == before != "kvroam"


def test_rope_that_depends_on_the_length_in_one_kind_of_layer_is_refused():
    """Gemma-like configurations hold one rotary setting per kind of layer."""
    model = build("Llama")
    fixed = dict(rope_type="default", rope_theta=1e4)
    model.config.rope_parameters = {"full_attention": fixed | {"rope_type": "dynamic"}, "other": fixed}
    with pytest.raises(ModelError, match="'dynamic' RoPE"):
        KVBackend(model)


def test_a_window_that_only_the_modules_know_is_refused():
    model = build("Llama")
    model.model.layers[1].self_attn.sliding_window = 64
    with pytest.raises(ModelError, match="sliding_window = 64"):
        KVBackend(model)


def test_a_window_that_is_configured_but_off_is_accepted():
    """As Qwen2.5 is published: sliding_window and max_window_layers are given, use_sliding_window is false."""
    network = build("Qwen2", use_sliding_window=False, sliding_window=16, max_window_layers=1)
    backend = KVBackend(network, settings=PLAIN)
    assert backend.llm.geometry.layers == 3


def test_a_model_comes_from_a_folder_with_its_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models

    model = build("Qwen3")
    model.save_pretrained(tmp_path)
    vocabulary = {f"w{i}": i for i in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(tmp_path)
    loaded, other = KVBackend.load(str(tmp_path), "cpu"), KVBackend(model, "another tokenizer", settings=PLAIN)
    assert loaded.llm.fingerprint == other.llm.fingerprint
    assert loaded.tokenizer_fingerprint and loaded.tokenizer.convert_tokens_to_ids("w7") == 7
    payload = loaded.encode(loaded.open(script(), 50), TransferPlan(keep=0.5))
    assert len(loaded.restore(payload, loaded.reference(script())).positions) == 25
    with pytest.raises(PayloadError, match="tokenizer"):
        other.restore(payload, other.reference(script()))


def test_models_without_rotary_positions_are_refused():
    config = transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    with pytest.raises(ModelError, match="rotary"):
        KVBackend(transformers.GPT2LMHeadModel(config))

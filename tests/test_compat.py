"""Fragile interfaces of other libraries: the probe finds them, notices a change, and the fallback gives the same."""

from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from kvroam import compat
from kvroam.envs.sim import cache
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.model import lean


def doubled(x):
    return 2 * x


def test_compiled_functions_are_kept_on_disk_where_that_is_possible_and_work_where_it_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kept = compat.njit_cached(nogil=True)(doubled)
    assert kept(21) == 42 and kept.targetoptions["nogil"] and list(tmp_path.rglob("*.nbc"))
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(doubled)
    fresh = compat.njit_cached(nogil=True)(doubled)
    assert fresh(21) == 42 and fresh.targetoptions["nogil"]


def test_a_numba_that_keeps_compiled_functions_elsewhere_is_noticed_and_nothing_is_kept(monkeypatch):
    assert compat.numba_caching() is numba.core.caching
    monkeypatch.delattr("numba.core.caching.FunctionCache._impl_class")
    monkeypatch.delattr("numba.core.caching._Cache._impl_class", raising=False)
    assert compat.numba_caching() is None
    monkeypatch.setattr(cache, "_CACHING", None)
    kernel = cache.keep(numba.njit(doubled))
    assert kernel(21) == 42 and type(kernel._cache).__name__ == "NullCache"


def test_a_drjit_that_does_not_tell_its_llvm_is_not_asked(monkeypatch):
    drjit = pytest.importorskip("drjit")
    monkeypatch.setattr(drjit, "detail", SimpleNamespace(llvm_version=lambda: (19, 1, "7")))
    assert compat.drjit_llvm_version() == (19, 1, 7)
    monkeypatch.setattr(drjit, "detail", SimpleNamespace())
    assert compat.drjit_llvm_version() == ()


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_the_linear_layer_is_the_usual_one_or_none():
    linear = compat.onednn_linear()
    if linear is None:
        pytest.skip("this torch has no oneDNN linear layer")
    x, layer = torch.randn(50, 64), torch.nn.Linear(64, 30)
    with torch.inference_mode():
        assert torch.allclose(linear(x, layer.weight, layer.bias), layer(x), atol=1e-5)
        assert torch.allclose(linear(x, layer.weight, None), F.linear(x, layer.weight), atol=1e-5)


def refuse(*_):
    raise RuntimeError("not on this machine")


@pytest.mark.parametrize(
    "operators",
    [
        SimpleNamespace(),
        SimpleNamespace(mkldnn=SimpleNamespace()),
        SimpleNamespace(mkldnn=SimpleNamespace(_linear_pointwise=refuse)),
        SimpleNamespace(mkldnn=SimpleNamespace(_linear_pointwise=lambda x, weight, bias: F.linear(x, weight, bias))),
        SimpleNamespace(mkldnn=SimpleNamespace(_linear_pointwise=lambda x, weight, bias, *_: F.linear(x, weight))),
    ],
    ids=["no namespace", "no operator", "it fails", "other arguments", "another result"],
)
def test_a_linear_layer_that_is_gone_or_changed_is_not_used(monkeypatch, operators):
    monkeypatch.setattr(torch, "ops", operators)
    assert compat.onednn_linear() is None


def test_drift_is_the_same_without_the_operator(monkeypatch):
    tokens = np.random.default_rng(0).integers(0, 512, 300)
    drifts = []
    for operator in (lean._ONEDNN, None):
        monkeypatch.setattr(lean, "_ONEDNN", operator)
        backend = KVBackend(small_model(), cache_dtype=torch.float32)
        session = backend.open(tokens, 250)
        backend.migrate([session], [TransferPlan(keep=0.4, bits=32)])
        drifts.append(backend.measure([session], 50))
    assert drifts[0].kl == pytest.approx(drifts[1].kl, abs=1e-4) and drifts[0].kl[0] > 0.01


def test_attention_is_read_switched_and_put_back():
    model = small_model()
    model.set_attn_implementation("sdpa")
    assert compat.attention_of(model) == "sdpa"
    ids, calls = torch.arange(8)[None], []
    with torch.inference_mode():
        before = model(ids).logits

        def counted(module, query, key, value, mask, **_):
            calls.append(module.layer_idx)
            key, value = (x.repeat_interleave(2, 1) for x in (key, value))
            return F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2), None

        compat.attend_with(model, "counted", counted)
        assert compat.attention_of(model) == "counted"
        assert torch.allclose(model(ids).logits, before, atol=1e-4) and calls == [0, 1]
        model.set_attn_implementation("sdpa")
        assert torch.equal(model(ids).logits, before) and calls == [0, 1]


@pytest.mark.parametrize("config", [SimpleNamespace(), SimpleNamespace(_attn_implementation=None),
                                    SimpleNamespace(_attn_implementation={"": "sdpa"})])  # fmt: skip
def test_a_model_that_does_not_tell_its_attention_is_taken_back_to_the_plain_one(config):
    assert compat.attention_of(SimpleNamespace(config=config)) == "eager"


def test_transformers_is_bounded_because_its_attention_interface_has_no_fallback():
    from importlib.metadata import version
    from pathlib import Path
    from tomllib import loads

    project = loads((Path(compat.__file__).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "transformers>=5.10,<6" in project["dependencies"]
    assert 5 <= int(version("transformers").split(".")[0]) < 6


def test_a_gif_is_shown_by_tensorboard_and_its_first_frame_where_that_cannot_be(tmp_path):
    import io

    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    stream = io.BytesIO()
    first, second = (Image.fromarray(np.full((20, 30, 3), shade, np.uint8)) for shade in (0, 200))
    first.save(stream, "GIF", save_all=True, append_images=[second])
    writer = SummaryWriter(str(tmp_path))
    assert compat.add_gif(writer, "clip", stream.getvalue(), 7)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("clip")
    assert (image.step, image.width, image.height) == (7, 30, 20) and image.encoded_image_string == stream.getvalue()

    shown = []
    changed = SimpleNamespace(add_image=lambda tag, frame, step, dataformats: shown.append((tag, frame, step)))
    assert not compat.add_gif(changed, "clip", stream.getvalue(), 8)
    assert shown[0][0] == "clip" and shown[0][2] == 8 and np.array_equal(shown[0][1], np.asarray(first))

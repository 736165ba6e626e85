"""Interfaces of other libraries that may change or fail without notice: one function each, with probe and fallback.

What kvroam uses of a library beside its public interface belongs here and nowhere else. A probe asks whether the
interface is there and still does what it did; if not, the fallback takes the public way. Where there is no fallback,
pyproject.toml bounds the library's version. Libraries are imported inside the functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from .errors import KvroamWarning

# numba


@cache
def numba_accepts(option: str) -> bool:
    """Whether numba compiles a function with the option set to False."""
    import numba

    options: dict[str, Any] = {option: False}
    try:
        numba.njit("int64()", **options)(lambda: 0)
    except Exception:  # which one depends on the version; any says that the option is not known
        return False
    return True


def numba_options() -> dict[str, Any]:
    """Options for a kernel that owns no array: without counting references, where numba can leave it.

    Counting is an atomic operation for every array at every call, on counters that all threads share; results are the
    same. `_nrt` is not part of numba's public interface.
    """
    return {"_nrt": False} if numba_accepts("_nrt") else {}


def numba_caching() -> Any | None:
    """The module in which numba keeps compiled functions, where it still has the classes that kvroam derives from.

    Returns:
        The module; None where it has changed. Functions are then compiled in every process.
    """
    try:
        from numba.core import caching

        found = caching.FunctionCache._impl_class, caching.CompileResultCacheImpl.get_filename_base, caching.NullCache
    except (ImportError, AttributeError):
        return None
    return caching if all(found) else None


def njit_cached(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` that keeps what it compiled on disk, where there is a folder to keep it in.

    numba raises RuntimeError for a read-only installation of a user without a home; then every process compiles anew.

    Args:
        options: of `numba.njit`, without `cache`.
    """
    from numba import njit

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return compiled


# torch


def onednn_linear() -> Callable[[Any, Any, Any], Any] | None:
    """oneDNN's linear layer as torch.compile calls it: float32 rows [n, in], weight [out, in], bias [out] or None.

    Returns:
        The function; None where this torch does not have it or its numbers are not those of `F.linear`, which is then
        used instead. Some processors compute it twice as fast.
    """
    import torch
    import torch.nn.functional as F

    x, weight = torch.linspace(-1.0, 1.0, 32).view(4, 8), torch.linspace(-2.0, 1.0, 24).view(3, 8)
    bias = torch.linspace(0.5, 1.5, 3)
    try:
        found: Any = torch.ops.mkldnn._linear_pointwise

        def linear(rows: Any, weight: Any, bias: Any) -> Any:
            return found(rows, weight, bias, "none", [], "")

        same = all(torch.allclose(linear(x, weight, b), F.linear(x, weight, b), atol=1e-5) for b in (None, bias))
    except (AttributeError, TypeError, RuntimeError, NotImplementedError):
        return None
    return linear if same else None


# transformers


def attention_of(model: Any) -> str:
    """The name of the attention implementation that a Hugging Face model uses.

    Returns:
        The name; "eager", which every model has, where this transformers does not tell.
    """
    name = getattr(model.config, "_attn_implementation", None)
    return name if isinstance(name, str) else "eager"


def attend_with(model: Any, name: str, function: Callable[..., Any]) -> None:
    """Make a Hugging Face model attend through a function of ours; the model object is changed.

    There is no fallback: pyproject.toml bounds transformers, and `LanguageModel` compares logits.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
    model.set_attn_implementation(name)


# Dr.Jit


def drjit_llvm_version() -> tuple[int, ...]:
    """The version of LLVM that Dr.Jit has loaded, e.g. (19, 1, 7); empty where this Dr.Jit does not tell."""
    import drjit

    try:
        return tuple(int(number) for number in drjit.detail.llvm_version())
    except (AttributeError, TypeError, ValueError):
        return ()


# TensorBoard shows a moving GIF that comes as an image; torch's own way to write one needs moviepy.


def add_gif(writer: Any, tag: str, gif: bytes, step: int) -> bool:
    """Write a GIF through torch's SummaryWriter.

    Returns:
        Whether it could be written as it is; if not, its first frame was.
    """
    import io

    import numpy as np
    from PIL import Image

    first = Image.open(io.BytesIO(gif))
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(height=first.height, width=first.width, colorspace=3, encoded_image_string=gif)
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
    except (ImportError, AttributeError, TypeError, ValueError):
        writer.add_image(tag, np.asarray(first.convert("RGB")), step, dataformats="HWC")
        return False
    return True


# Stable-Baselines3: a logger keeps the scalars of an update until the end of the next rollout, in fields without a
# public name. Without them a resumed run would miss one row of its `train/` scalars, and nothing else.
# In 2.7 to 2.9: what stable_baselines3.common.logger.Logger collects until `dump`.
_PENDING = ("name_to_value", "name_to_count", "name_to_excluded")


def pending_scalars(logger: Any) -> dict[str, dict[str, Any]]:
    """The scalars that a Stable-Baselines3 logger has recorded and not written yet; empty where they are not found."""
    if not all(isinstance(getattr(logger, name, None), dict) for name in _PENDING):
        _say_once()
        return {}
    return {name: dict(getattr(logger, name)) for name in _PENDING}


def restore_pending_scalars(logger: Any, scalars: dict[str, dict[str, Any]]) -> None:
    """Let a Stable-Baselines3 logger write, at its next `dump`, what `pending_scalars` found in another one."""
    if set(scalars) != set(_PENDING) or not all(isinstance(getattr(logger, name, None), dict) for name in _PENDING):
        _say_once()
        return
    for name, values in scalars.items():
        getattr(logger, name).update(values)


_said = False


def _say_once() -> None:
    global _said
    if not _said:
        _said = True
        warnings.warn("this Stable-Baselines3 keeps its pending scalars elsewhere: a resumed run misses one row of "
                      "the train/ scalars", KvroamWarning, stacklevel=3)

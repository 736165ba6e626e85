"""The texts that sessions stream: the shipped model wrote them, `training/sample.py` stored them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import ModelError
from .manifest import ASSETS, verify
from .tokenizer import SPECIALS, VOCABULARY


def load_texts(folder: Path = ASSETS) -> np.ndarray:
    """The shipped texts, uint16 [documents, tokens].

    Raises:
        ModelError: The file is absent, altered, or holds ids outside the vocabulary.
    """
    verify(folder, ("texts.npz",))
    with np.load(folder / "texts.npz", allow_pickle=False) as stored:
        texts = stored["texts"]
    if texts.ndim != 2 or texts.dtype != np.uint16 or not (len(SPECIALS) <= texts.min() <= texts.max() < VOCABULARY):
        raise ModelError(f"texts.npz: {texts.dtype} {texts.shape} is not uint16 [documents, tokens]; reinstall kvroam")
    return texts

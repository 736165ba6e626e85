"""The tokenizer: special tokens first, then byte pairs; `training/vocabulary.py` made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ModelError
from .manifest import ASSETS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 2048
SPECIALS = ("<pad>", "<bos>", "<fact>", "<ask>", "<ans>", "<end>")
PAD, BOS, FACT, ASK, ANS, END = range(len(SPECIALS))


def load_tokenizer(path: Path | None = None) -> Tokenizer:
    """The tokenizer as a `tokenizers.Tokenizer` (needs neither torch nor transformers).

    Raises:
        ModelError: The file is absent or not a tokenizer.
    """
    from tokenizers import Tokenizer

    source = ASSETS / "tokenizer.json" if path is None else path
    try:
        return Tokenizer.from_file(str(source))
    except Exception as error:
        raise ModelError(f"tokenizer: {source} cannot be read ({error}); reinstall kvroam") from error

"""A small Llama with random weights, large enough that pruning its cache changes its predictions."""

import copy
import shutil

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvroam.kvbackend import KVBackend
from kvroam.kvbackend.embedded.manifest import ASSETS
from kvroam.kvbackend.embedded.model import load_model
from kvroam.kvbackend.embedded.tokenizer import load_tokenizer

from .plain import PLAIN

VOCAB = 2048


def make_model(seed: int = 0) -> LlamaForCausalLM:
    """Two layers, 128 wide, four query heads on two key heads; wide initial weights make attention selective."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.15,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def oracle_model(model):
    """The same weights with transformers' own eager attention, never touched by the backend."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    return twin


@pytest.fixture(scope="session")
def exact(model, oracle_model):
    """A backend that keeps its cache in float32."""
    return KVBackend(copy.deepcopy(model), "tok", settings=PLAIN, cache_dtype=torch.float32)


@pytest.fixture(scope="session")
def backend(model, oracle_model):
    """A backend that serves at 16 bits."""
    return KVBackend(copy.deepcopy(model), "tok", settings=PLAIN)


@pytest.fixture(scope="module")
def loaded():
    """The model that ships, and its tokenizer for transformers."""
    return load_model()


@pytest.fixture(scope="module")
def tokenizer():
    """The tokenizer that ships, of the library tokenizers."""
    return load_tokenizer()


@pytest.fixture
def copied(tmp_path):
    """A folder with the shipped files that can be written to, also where the checkout cannot."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for path in ASSETS.iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture
def tokens():
    return np.random.default_rng(7).integers(0, VOCAB, 300)

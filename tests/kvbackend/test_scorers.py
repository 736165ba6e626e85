"""Scorers own their parameters: chosen by name with flat settings, or as objects; new ones are a short class."""

import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from kvroam.errors import ConfigError
from kvroam.kvbackend import SCORERS, KVBackend, KVSettings, TransferPlan
from kvroam.kvbackend.scorers import Scorer
from kvroam.kvbackend.scorers.attention_sum import AttentionSum
from kvroam.kvbackend.scorers.expected_attention import ExpectedAttention
from kvroam.kvbackend.scorers.random import Random
from kvroam.kvbackend.scorers.reconstruction import Reconstruction
from kvroam.kvbackend.scorers.window import Window
from kvroam.kvbackend.scorers.window_raw import WindowRaw

from .plain import PLAIN


def kept(model, tokens, **settings) -> list[int]:
    backend = KVBackend(copy.deepcopy(model), settings=replace(PLAIN, **settings))
    session = backend.open(tokens, 200)
    backend.migrate([session], [TransferPlan(keep=0.2)])
    return session.positions.tolist()


def test_the_table_names_frozen_parameter_sets():
    assert list(SCORERS) == [
        "window", "window-raw", "attention-sum", "attention-sum-raw", "key-norm", "streaming", "random",
        "reconstruction", "expected-attention",
    ]  # fmt: skip
    for name, kind in SCORERS.items():
        assert kind.name == name and issubclass(kind, Scorer) and is_dataclass(kind)
        assert kind() == kind() and hash(kind()) == hash(kind())  # frozen: settings are keys of caches
    parameters = {name: tuple(field.name for field in fields(kind)) for name, kind in SCORERS.items()}
    assert {name: names for name, names in parameters.items() if names} == {
        "window": ("window", "pool"), "window-raw": ("window",), "attention-sum": ("window",), "random": ("seed",),
        "reconstruction": ("chunk", "lead", "step", "pool", "share"),
        "expected-attention": ("history", "horizon", "by_value"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flat", "made"),
    [
        (dict(scorer="window", window=7, pool=3), Window(window=7, pool=3)),
        (dict(scorer="window"), Window(32, 5)),
        (dict(scorer="window-raw", window=7, pool=3), WindowRaw(window=7)),
        (dict(scorer="attention-sum", window=100), AttentionSum(window=100)),
        (dict(scorer="random", seed=4), Random(seed=4)),
        (dict(scorer="reconstruction", pool=3), Reconstruction(pool=3)),
        (dict(scorer="expected-attention"), ExpectedAttention()),
    ],
)
def test_a_name_with_flat_parameters_is_the_object(model, tokens, flat, made):
    assert KVSettings(**flat).ranking == made
    assert kept(model, tokens, **flat) == kept(model, tokens, scorer=made)


@pytest.mark.parametrize(
    ("one", "other"),
    [(Window(), Window(window=4)), (Window(), Window(pool=21)), (WindowRaw(), WindowRaw(window=4)),
     (AttentionSum(), AttentionSum(window=150)), (Random(), Random(seed=1)),
     *((Reconstruction(), Reconstruction(**{name: value})) for name, value in
       dict(chunk=16, lead=0, step=64, pool=21, share=0.0).items()),
     *((ExpectedAttention(), ExpectedAttention(**{name: value})) for name, value in
       dict(history=50, horizon=5, by_value=True).items())],
)  # fmt: skip
def test_every_parameter_reaches_the_choice(model, tokens, one, other):
    assert kept(model, tokens, scorer=one) != kept(model, tokens, scorer=other)


def test_guards_are_of_the_selection_whatever_the_scorer(model, tokens):
    assert kept(model, tokens, scorer="streaming", sinks=3, recent=0) == [0, 1, 2, *range(163, 200)]
    chosen = kept(model, tokens, scorer=Random(), sinks=6, recent=12)
    assert set(range(6)) | set(range(188, 200)) <= set(chosen) and len(chosen) == 40


@pytest.mark.parametrize("name", list(SCORERS))
@pytest.mark.parametrize("wrong", [dict(window=0), dict(pool=4), dict(pool=-1), dict(seed=-1), dict(sinks=-1)])
def test_a_parameter_out_of_range_is_refused_with_its_name_and_value(name, wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{key} = {value}"):
        KVSettings(scorer=name, **wrong)


def test_a_scorer_object_refuses_wrong_parameters_itself():
    for make in (lambda: Window(window=0), lambda: Window(pool=4), lambda: WindowRaw(0), lambda: AttentionSum(0)):
        with pytest.raises(ConfigError):
            make()


@dataclass(frozen=True)
class Stride(Scorer):
    """Every so many tokens."""

    name: ClassVar[str] = "stride"
    step: int = 5

    def score(self, view) -> np.ndarray:
        return (view.positions % self.step == 0).astype(float)


def test_a_new_scorer_is_one_class(model, tokens):
    assert kept(model, tokens, scorer=Stride(), sinks=0, recent=0) == list(range(0, 200, 5))


def test_objects_that_cannot_score_are_refused():
    with pytest.raises(ConfigError, match="type int has no method score"):
        KVSettings(scorer=3)


def test_scopes_have_one_name_each():
    assert (KVSettings().scorer, KVSettings().scope) == ("reconstruction", "head")
    for name in ("token", "sequences", ""):
        with pytest.raises(ConfigError, match="use one of sequence, head"):
            KVSettings(scope=name)


@pytest.mark.parametrize(("scorer", "window"), [(Window(window=9), 9), ("key-norm", 32), ("window-raw", 32)])
def test_a_monitor_keeps_the_window_of_the_scorer(model, tokens, scorer, window):
    backend = KVBackend(copy.deepcopy(model), settings=replace(PLAIN, scorer=scorer))
    session = backend.open(tokens, 100)
    assert backend.watch(session).window == window == backend.settings.monitor_window
    plain = backend.open(tokens, 100)
    assert backend.encode(session, TransferPlan(keep=0.3)) == backend.encode(plain, TransferPlan(keep=0.3))

"""The network of a trained policy: logits from observations, and the choice of each part from logits and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import require

if TYPE_CHECKING:
    import torch

ACTIVATIONS = ("Tanh", "ReLU", "ELU", "LeakyReLU", "GELU", "SiLU")  # classes of torch.nn


@dataclass(frozen=True)
class Network:
    """Kind and shape of an actor.

    "mlp" is hidden layers and a linear one; in "lstm" an LSTM comes before them. "numbers" is no network: the numbers
    of a policy that its task's catalogue makes (agents.base.Tunables).
    """

    kind: Literal["mlp", "lstm", "numbers"]
    hidden: tuple[int, ...]  # units of the hidden layers
    activation: str  # after each hidden layer, one of ACTIVATIONS
    lstm_units: int = 0
    lstm_layers: int = 0
    names: tuple[str, ...] = ()  # of the numbers

    def __post_init__(self) -> None:
        require(self.activation in ACTIVATIONS,
                f"activation is {self.activation!r}: choose among {', '.join(ACTIVATIONS)}")
        require(all(units >= 1 for units in self.hidden), f"hidden is {list(self.hidden)}: a layer has at least 1 unit")
        recurrent = self.kind == "lstm"
        require((self.lstm_units >= 1) == (self.lstm_layers >= 1) == recurrent,
                f"{self.kind} with {self.lstm_layers} LSTM layers of {self.lstm_units} units: an lstm has at least 1 "
                "of each, an mlp none")

    def shapes(self, features: int, choices: int) -> dict[str, tuple[int, ...]]:
        """The tensors of the network by name, and their shapes.

        Args:
            features: numbers of an observation.
            choices: sum of the action sizes.
        """
        if self.kind == "numbers":
            return {"numbers": (len(self.names),)}
        found: dict[str, tuple[int, ...]] = {}
        width = features
        for k in range(self.lstm_layers):
            gates = 4 * self.lstm_units
            found |= {f"lstm.weight_ih_l{k}": (gates, width), f"lstm.weight_hh_l{k}": (gates, self.lstm_units),
                      f"lstm.bias_ih_l{k}": (gates,), f"lstm.bias_hh_l{k}": (gates,)}
            width = self.lstm_units
        for k, (inside, out) in enumerate(pairwise((width, *self.hidden))):
            found |= {f"hidden.{k}.weight": (out, inside), f"hidden.{k}.bias": (out,)}
        last = self.hidden[-1] if self.hidden else width
        return found | {"logits.weight": (choices, last), "logits.bias": (choices,)}


@dataclass(frozen=True)
class Normalisation:
    """Observations as the network wants them: (x - mean) / scale, clipped to [-clip, clip] where there is a limit."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float | None = None

    def __post_init__(self) -> None:
        require(len(self.mean) == len(self.scale),
                f"normalisation has {len(self.mean)} means and {len(self.scale)} scales: one each per feature")
        finite = np.isfinite(self.mean).all() and np.isfinite(self.scale).all()
        require(bool(finite and min(self.scale, default=1.0) > 0),
                "normalisation: means must be finite, scales finite and above 0")
        require(self.clip is None or self.clip > 0, f"normalisation: clip is {self.clip}, it must be above 0")

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Normalised rows, float32 [N, F]."""
        rows = (observations - np.array(self.mean)) / np.array(self.scale)
        return (rows if self.clip is None else np.clip(rows, -self.clip, self.clip)).astype(np.float32)


class Actor:
    """A network that acts for N rows at once, on the CPU.

    Args:
        network: its shape.
        tensors: by the names of `network.shapes`, float32.
        sizes: number of choices of each part of an action.
        normalisation: of the observations, or None.
    """

    def __init__(self, network: Network, tensors: Mapping[str, np.ndarray], sizes: Sequence[int],
                 normalisation: Normalisation | None = None) -> None:
        import torch

        self.network, self.sizes, self.normalisation = network, tuple(sizes), normalisation
        self._tensors = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in tensors.items()}
        self._activation = getattr(torch.nn, network.activation)()
        self._lstm = self._make_lstm() if network.kind == "lstm" else None

    def _make_lstm(self) -> Any:
        import torch

        weights = {name.removeprefix("lstm."): tensor for name, tensor in self._tensors.items()
                   if name.startswith("lstm.")}
        # A network is initialised before its weights are replaced, which must not move the caller's generator.
        with torch.random.fork_rng(devices=[]):
            lstm = torch.nn.LSTM(weights["weight_ih_l0"].shape[1], self.network.lstm_units, self.network.lstm_layers)
        lstm.load_state_dict(weights)
        return lstm.requires_grad_(False)

    def memory(self, rows: int) -> tuple[np.ndarray, ...]:
        """What rows remember at the start of an episode: two arrays float32 [layers, rows, units]; none for an mlp."""
        if self._lstm is None:
            return ()
        shape = self.network.lstm_layers, rows, self.network.lstm_units
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def logits(self, observations: np.ndarray, memory: tuple[np.ndarray, ...] = (),
               ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Logits float32 [N, sum of the sizes], and what the rows remember then.

        Args:
            observations: float32 [N, F], as the environment gives them.
            memory: of these rows, as `memory` or the last call returned it.
        """
        import torch

        seen = observations if self.normalisation is None else self.normalisation(observations)
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(seen, np.float32))
            if self._lstm is not None:
                hidden, cell = (torch.from_numpy(np.ascontiguousarray(array)) for array in memory or
                                self.memory(len(x)))
                x, after = self._lstm(x[None], (hidden, cell))
                x, memory = x[0], tuple(array.numpy() for array in after)
            for k in range(len(self.network.hidden)):
                x = self._activation(self._linear(x, f"hidden.{k}"))
            return self._linear(x, "logits").numpy(), memory

    def choose(self, logits: np.ndarray, masks: np.ndarray | None = None,
               draws: np.random.Generator | None = None) -> np.ndarray:
        """A choice for each part, int64 [N, parts]: the most probable one, or one drawn by its probability.

        Args:
            logits: float32 [N, sum of the sizes].
            masks: which choices are open, bool [N, sum of the sizes]; at least one of each part. None: all.
            draws: random numbers to draw with; None: no draw.
        """
        scores = logits if masks is None else np.where(masks, logits, -np.inf)
        if draws is not None:
            # The largest of logits with Gumbel noise is a draw from their softmax.
            scores = scores + draws.gumbel(size=scores.shape)
        parts = np.split(scores, np.cumsum(self.sizes)[:-1], axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1).astype(np.int64)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        import torch.nn.functional as F

        return F.linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

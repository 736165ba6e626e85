"""The policy that RLlib has trained, as the kind of file that evaluate.py plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...agents import policy_file
from ...agents.actor import Network
from ...agents.policy_file import PolicyFile
from ...experiment import Experiment
from ..algorithm import algorithm


def policy_of(experiment: Experiment[Any], actor: Mapping[str, np.ndarray], steps: int) -> PolicyFile:
    """The policy of a training as it stands.

    Args:
        experiment: what it is trained in.
        actor: weights of what acts, as of module.actor_weights.
        steps: of training.

    Raises:
        PolicyError: the weights are not those of the network that the experiment asks for.
    """
    options = experiment.train
    return policy_file.assemble(
        experiment, Network("mlp", tuple(options.hidden), options.activation), actor, algorithm=options.algorithm,
        decisions=options.decisions, masked=algorithm(experiment)[1], steps=steps)

"""Views of the batched core: PettingZoo parallel and AEC, Gymnasium central, ego and vector, Stable-Baselines3."""

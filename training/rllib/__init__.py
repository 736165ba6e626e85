"""Training on Ray RLlib: the environment as it wants one, a shared scorer, the policy, advantages, and the engine."""

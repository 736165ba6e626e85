"""What train.py stands on: the algorithm, its callbacks, checkpoints and their descriptions, the run folder."""

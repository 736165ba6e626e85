"""What train.py stands on: checkpoints and how a run goes on from them."""

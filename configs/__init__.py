"""Experiment files (YAML, every key commented) and the loader that checks them."""

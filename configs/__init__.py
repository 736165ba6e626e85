"""Experiment files: YAML, every key commented."""

"""Handover: what should happen to an LLM session's KV cache when its user changes cell."""

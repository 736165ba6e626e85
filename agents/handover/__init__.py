"""Policies for Handover: from the papers, simple baselines and constants."""

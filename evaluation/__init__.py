"""What evaluate.py stands on: roll-out, results, metrics, estimates, tables, figures, provenance."""

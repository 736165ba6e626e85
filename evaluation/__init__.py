"""What evaluate.py stands on: metrics, estimates, tables, figures, provenance."""

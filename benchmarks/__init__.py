"""Speed and fidelity, measured; and the statistics and reports that evaluate.py prints."""

"""Fidelity against bytes, measured: `python -m kvroam.kvbackend.sweep [--model NAME --text FILE] --out DIR`.

Every session is handed over once by every combination of scorer, kept fraction and precision, and then reads on. The
table `sweep.csv` and the figure `sweep.png` say what each combination costs in bytes and in drift.
"""

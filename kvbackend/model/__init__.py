"""The language model under the backend: loading, what is refused, its forward passes, and comparing predictions.

`forward.py` is what the rest calls. `attention.py` goes under any Hugging Face model, `lean.py` and `kernels.py` make
the usual kinds faster on the CPU, `divergence.py` compares logits.
"""

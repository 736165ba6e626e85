"""What a sweep can be asked for by name. No torch here: a wrong name is refused before a model is loaded."""

from ..settings import TransferPlan

# A sweep's own scorers: the upper bound, and the suffix that lets each layer and KV head keep a list of its own.
ORACLE = "oracle"
PER_HEAD = "@head"

PRECISIONS = {
    "fp32": TransferPlan(bits=32),
    "fp16": TransferPlan(bits=16, half="float16"),
    "bf16": TransferPlan(bits=16, half="bfloat16"),
    "int8": TransferPlan(bits=8),
    "int4": TransferPlan(bits=4),
    "int2": TransferPlan(bits=2),
}

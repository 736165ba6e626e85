"""What a sweep can be asked for by name. No torch here: a wrong name is refused before a model is loaded."""

from ..codecs.table import CODECS
from ..settings import TransferPlan

# A sweep's own scorers: the upper bound, and the suffix that lets each layer and KV head keep a list of its own.
ORACLE = "oracle"
PER_HEAD = "@head"

# Every width of the codec table; at 16 bits, both kinds of numbers.
PRECISIONS = {codec.name: TransferPlan(bits=codec.bits, half="float16") for codec in CODECS}
PRECISIONS["bf16"] = TransferPlan(bits=16, half="bfloat16")

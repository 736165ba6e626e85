"""Work spread over as many threads as torch may use.

The backend takes torch's number of threads as it is and never changes it; that is up to the program that calls it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import torch

_LEAST = 1 << 15  # numbers; below that a second thread costs more than it saves


def spread(items: int, numbers: int, work: Callable[[int, int], None]) -> None:
    """Do `work(lo, hi)` for all items, on as many threads as torch uses where there are enough numbers to pay for it.

    Args:
        items: how many there are.
        numbers: how many numbers they hold together.
    """
    threads = min(torch.get_num_threads(), items, numbers // _LEAST)
    if threads < 2:
        work(0, items)
        return
    ends = [items * i // threads for i in range(threads + 1)]
    pool = _pool(threads - 1)
    others = [pool.submit(work, lo, hi) for lo, hi in pairwise(ends[1:])]
    work(ends[0], ends[1])
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kvroam")

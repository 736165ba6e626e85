"""torch's number of threads belongs to the program: the backend leaves it alone, commands put it back."""

import copy
from pathlib import Path

import pytest
import torch

import kvroam.kvbackend as package
from kvroam.errors import KvroamError
from kvroam.kvbackend import KVBackend, TransferPlan
from kvroam.kvbackend.embedded.training import pruning, report, sample, train
from kvroam.kvbackend.threads import spread
from kvroam.threads import torch_threads

from .plain import PLAIN


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_whole_handover_leaves_the_number_as_it_is(three_threads, model, tokens):
    backends = [KVBackend.load(device="cpu"), KVBackend(copy.deepcopy(model), settings=PLAIN)]
    for backend in backends:
        session = backend.open(tokens, 200)
        backend.watch(session)
        backend.migrate([session], [TransferPlan(keep=0.3, bits=4)])
        backend.advance([session], [20])
        backend.measure([session], 10)
        assert torch.get_num_threads() == 3


def test_the_backend_never_sets_it():
    """What a test cannot run through is looked for in the text."""
    root = Path(package.__file__).parent
    setters = [path.name for path in root.rglob("*.py") if "set_num_" in path.read_text(encoding="utf-8")]
    assert setters == []


def test_the_bound_ends_with_the_block_also_when_it_fails(three_threads):
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), torch_threads(2):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_commands_work_with_the_threads_they_were_given_and_put_them_back(three_threads, copied, tmp_path, monkeypatch):
    seen = []

    def note(*_, **__):
        seen.append(torch.get_num_threads())
        raise KvroamError("far enough")

    for module, name in ((report, "full_report"), (sample, "sample_texts"), (train, "train"), (pruning, "measure")):
        monkeypatch.setattr(module, name, note)
    assert report.command.main(["--folder", str(copied), "--threads", "2"]) == 2
    assert sample.command.main(["--folder", str(copied)]) == 2
    assert train.command.main(["--out", str(tmp_path / "run"), "--threads", "2"]) == 2
    assert pruning.command.main(["--out", str(tmp_path / "pruning")]) == 2
    assert seen == [2, 1, 2, 1] and torch.get_num_threads() == 3


def test_work_is_spread_over_the_threads_that_torch_may_use_and_each_item_is_done_once(three_threads):
    for items, numbers, most in ((100, 1 << 20, 3), (2, 1 << 20, 2), (100, 100, 1), (1, 1 << 20, 1), (0, 0, 1)):
        parts = []
        spread(items, numbers, lambda lo, hi, parts=parts: parts.append((lo, hi)))
        assert len(parts) == most
        assert sorted(i for lo, hi in parts for i in range(lo, hi)) == list(range(items))

"""Compiled kernels are dropped when any source changes, and only then."""

from __future__ import annotations

from pathlib import Path

from kvroam.envs.sim.cache import drop_stale


def folder(path: Path) -> Path:
    """A source folder with one compiled kernel."""
    (path / "__pycache__").mkdir(parents=True)
    (path / "a.py").write_text("x = 1\n")
    (path / "__pycache__" / "a.kernel.nbi").write_bytes(b"old")
    return path


def test_kernels_of_all_folders_go_when_one_source_changes(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    assert drop_stale((one, two)), "kernels of unknown origin are not trusted"
    kernel = two / "__pycache__" / "a.kernel.nbi"
    kernel.write_bytes(b"new")
    assert not drop_stale((one, two)) and kernel.exists()
    (one / "a.py").write_text("x = 2\n")
    assert drop_stale((one, two)) and not kernel.exists()
    assert not drop_stale((one, two))


def test_folders_that_do_not_exist_yet_do_no_harm(tmp_path: Path) -> None:
    assert not drop_stale((tmp_path / "absent",))

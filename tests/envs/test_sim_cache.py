"""Compiled kernels are kept between runs, and never outlive a change of any source that went into them."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kvroam.envs
from kvroam.envs.sim import cache

SOURCES = Path(cache.__file__).parent
LAW = "from .jit import kernel\n\n\n@kernel\ndef law(x):\n    return x + {}\n"
MAIN = """from ..sim.jit import entry
from ..sim.law import law


@entry
def main(x):
    return 10 * law(x)
"""
PROGRAM = """import sys
sys.dont_write_bytecode = True
from tiny.envs.task.main import main
print(main(1), sum(main.stats.cache_hits.values()))
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A package with one law and one kernel of a task that calls it."""
    package = tmp_path / "src" / "tiny"
    for folder in ("envs/sim", "envs/task"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    for folder in (package, package / "envs"):
        (folder / "__init__.py").touch()
    for name in ("cache.py", "jit.py"):
        shutil.copyfile(SOURCES / name, package / "envs/sim" / name)
    for name in ("compat.py", "errors.py"):
        shutil.copyfile(SOURCES.parents[1] / name, package / name)
    (package / "envs/sim/law.py").write_text(LAW.format(1))
    (package / "envs/task/main.py").write_text(MAIN)
    return package


def environment(package: Path) -> dict[str, str]:
    """The variables of this process, without those that say where kernels are kept."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([str(package.parent), *filter(None, [kept.get("PYTHONPATH")])])}


def run(package: Path, program: str = PROGRAM, **settings: str) -> tuple[str, str]:
    """What the program prints, and what it says on stderr."""
    done = subprocess.run([sys.executable, "-c", program], cwd=package.parent, capture_output=True, text=True,
                          env=environment(package) | settings)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("place", ["beside", "NUMBA_CACHE_DIR", "home"])
def test_wherever_they_are_kept_kernels_go_when_another_file_changes_and_only_then(tiny, tmp_path, place) -> None:
    settings = {"HOME": str(tmp_path / "home")}
    if place == "NUMBA_CACHE_DIR":
        settings["NUMBA_CACHE_DIR"] = str(tmp_path / "kept")
    if place == "home":
        # Nothing can be written beside the sources, as in an installation of another user.
        for folder in ("sim", "task"):
            (tiny / "envs" / folder / "__pycache__").touch()
    kept = {"beside": tiny, "NUMBA_CACHE_DIR": tmp_path / "kept", "home": tmp_path / "home"}[place]
    printed, said = run(tiny, **settings)
    assert printed == "20 0" and said.count("half a minute") == 1 and said.count("\n") == 1
    files = sorted(kept.rglob("*.nb?"))
    assert len(files) >= 4
    assert run(tiny, **settings) == ("20 1", "")
    (tiny / "envs/sim/law.py").write_text(LAW.format(2))
    assert run(tiny, **settings)[0] == "30 0"
    after = sorted(kept.rglob("*.nb?"))
    assert len(after) == len(files) and not set(after) & set(files), "what older sources left is dropped"
    (tiny / "envs/sim/law.py").write_text(LAW.format(1))
    assert run(tiny, **settings)[0] == "20 0"


def test_where_nothing_can_be_written_it_works_and_says_so_once(tiny) -> None:
    for folder in ("sim", "task"):
        (tiny / "envs" / folder / "__pycache__").touch()
    for _ in range(2):
        printed, said = run(tiny, HOME=os.devnull)
        assert printed == "20 0"
        assert said.count("half a minute") == 1 and said.count("NUMBA_CACHE_DIR") == 1 and said.count("\n") == 2


def test_damaged_files_are_compiled_anew(tiny) -> None:
    run(tiny)
    for k, file in enumerate(sorted(tiny.rglob("*.nb?"))):
        file.write_bytes(file.read_bytes()[:40] if k % 2 else b"")
    assert run(tiny)[0] == "20 0"


def test_several_processes_that_start_at_once_get_what_one_alone_gets(tiny) -> None:
    command = [sys.executable, "-c", PROGRAM]
    several = [subprocess.Popen(command, cwd=tiny.parent, env=environment(tiny), stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.communicate()[0].split()[0] for process in several] == ["20"] * 3
    assert run(tiny)[0] == "20 1"


def test_processes_that_a_process_starts_say_nothing(tiny) -> None:
    program = """if __name__ == "__main__":
    import multiprocessing, runpy
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=__import__("tiny.worker", fromlist=["work"]).work)
    process.start(); process.join(); raise SystemExit(process.exitcode)
"""
    (tiny / "worker.py").write_text("def work():\n    from tiny.envs.task.main import main\n    print(main(1))\n")
    assert run(tiny, program) == ("20", "")


def test_a_change_in_another_task_drops_nothing(tiny, monkeypatch) -> None:
    monkeypatch.setattr(cache, "_SIM", tiny / "envs/sim")
    monkeypatch.setattr(cache, "_ENVS", tiny / "envs")

    def digests() -> tuple[str, str]:
        cache._digest.cache_clear()
        return cache.digest(tiny / "envs/sim/law.py"), cache.digest(tiny / "envs/task/main.py")

    before = digests()
    (tiny / "envs/other").mkdir()
    (tiny / "envs/other/main.py").write_text("y = 1\n")
    assert digests() == before
    (tiny / "envs/task/world").mkdir()
    (tiny / "envs/task/world/engine.py").write_text("z = 1\n")
    law, main = digests()
    assert law == before[0] and main != before[1]
    (tiny / "envs/sim/law.py").write_text(LAW.format(3))
    assert not {*digests()} & {law, main}
    cache._digest.cache_clear()


def test_kernels_of_a_tasks_policies_go_when_the_task_or_the_policies_change(tiny, monkeypatch) -> None:
    monkeypatch.setattr(cache, "_SIM", tiny / "envs/sim")
    monkeypatch.setattr(cache, "_ENVS", tiny / "envs")
    for task in ("task", "other"):
        (tiny / "agents" / task).mkdir(parents=True)
        (tiny / "agents" / task / "policy.py").write_text("y = 1\n")

    def digests() -> tuple[str, str]:
        cache._digest.cache_clear()
        return cache.digest(tiny / "agents/task/policy.py"), cache.digest(tiny / "agents/other/policy.py")

    seen = [digests()]
    for changed in ("envs/task/main.py", "agents/task/policy.py"):
        (tiny / changed).write_text("z = 1\n")
        seen.append(digests())
    mine, others = zip(*seen, strict=True)
    assert len(set(mine)) == 3 and len(set(others)) == 1
    (tiny / "envs/sim/law.py").write_text(LAW.format(3))
    assert not {*digests()} & {*mine, *others}
    cache._digest.cache_clear()


def test_every_kernel_calls_only_what_its_digest_covers() -> None:
    root, kernels = Path(kvroam.envs.__file__).parent, {}
    for part in ("sim", "handover", "scenes"):
        for module in pkgutil.walk_packages([str(root / part)], f"kvroam.envs.{part}."):
            if not module.name.endswith("__main__"):
                for value in vars(importlib.import_module(module.name)).values():
                    if hasattr(value, "py_func"):
                        kernels[id(value)] = value
    assert len(kernels) > 60

    def home(kernel) -> str:
        return Path(kernel.py_func.__code__.co_filename).relative_to(root).parts[0]

    for kernel in kernels.values():
        assert isinstance(kernel._cache, (cache._KernelCache, cache._NoCache)), f"{kernel} is kept in another way"
        names = kernel.py_func.__code__.co_names
        for name in names:
            called = kernel.py_func.__globals__.get(name)
            for inner in [called, *(getattr(called, other, None) for other in names)]:
                if hasattr(inner, "py_func"):
                    assert home(inner) in ("sim", home(kernel)), f"{kernel} calls {inner}"

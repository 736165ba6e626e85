"""Policies of the user's own: from files, modules, classes, functions and objects; and the page's example, run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from kvroam import agents
from kvroam.envs import Core, make_core
from kvroam.envs.handover.config import HandoverConfig, resolve
from kvroam.envs.handover.world.simulator import idle_plans
from kvroam.envs.handover.world.state import KV, TOKEN
from kvroam.errors import PolicyError
from kvroam.evaluate import command

CONFIG = resolve({"scoring": {"mode": "none"}, "num_ues": 4, "mobility": {"vehicle_share": 1.0}})
PLAIN = """
from kvroam.agents.handover import KV, reactive_plans

class Plain:
    def act(self, view):
        return reactive_plans(view, KV, keep=0.5)
"""


def begun(config: HandoverConfig = CONFIG, seeds=(1,)) -> Core:
    """A core just reset."""
    core = make_core(config, len(seeds))
    core.reset(seeds)
    return core


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    """The path of a file with that text."""
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_class_in_a_file_plays_with_the_default_name_and_reset(tmp_path: Path) -> None:
    policy = agents.make(write(tmp_path, PLAIN) + ":Plain", CONFIG)
    core = begun()
    policy.reset(core.view)
    plans = policy.act(core.view)
    assert policy.name == "Plain" and (plans["medium"] == KV).all() and (plans["keep"] == 0.5).all()


def test_arguments_have_the_type_of_their_default_and_config_and_seed_are_given(tmp_path: Path) -> None:
    path = write(tmp_path, """
class Typed:
    def __init__(self, config, seed, few, share=0.5, count: int = 3, exact=False, title="x", free=None, *, late: int):
        self.got = (config.num_ues, seed, few, share, count, exact, title, free, late)
    def act(self, view):
        raise NotImplementedError
""")
    given = "few=2,share=1,count=4,exact=true,title=7,free=2.5,late=9"
    policy = agents.make(f"{path}:Typed:{given}", CONFIG, seed=11)
    got = policy.policy.got  # type: ignore[attr-defined]
    assert got == (4, 11, 2, 1.0, 4, True, "7", 2.5, 9)
    assert [type(value) for value in got] == [int, int, int, float, int, bool, str, float, int]
    assert policy.name == f"Typed:{given}"
    assert agents.make(f"{path}:Typed:few=1,late=2,seed=5", CONFIG, 11).policy.got[1] == 5  # type: ignore[attr-defined]


def test_its_own_name_and_reset_are_used(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + """
class Named(Plain):
    name = "my best"
    begun = 0
    def reset(self, view):
        self.begun += view.num_envs
""")
    policy = agents.make(path + ":Named", CONFIG)
    policy.reset(begun(seeds=(1, 2)).view)
    assert policy.name == "my best" and policy.policy.begun == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["", ".inner"])
def test_a_module_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    package = tmp_path / f"policies_of_{'a' if suffix else 'b'}_test"
    package.mkdir()
    write(package, "" if suffix else PLAIN, "__init__.py")
    write(package, PLAIN, "inner.py")
    monkeypatch.syspath_prepend(tmp_path)
    policy = agents.make(f"{package.name}{suffix}:Plain", CONFIG)
    assert (policy.act(begun().view)["medium"] == KV).all()


def test_a_factory_an_object_and_a_function_from_it(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + """
def factory(keep=0.25):
    made = Plain()
    made.act = lambda view: reactive_plans(view, KV, keep=keep)
    return made

ready = Plain()

def function_of(medium=0):
    return lambda view: reactive_plans(view, medium)
""")
    view = begun().view
    assert (agents.make(path + ":factory", CONFIG).act(view)["keep"] == 0.25).all()
    assert (agents.make(path + ":factory:keep=0.75", CONFIG).act(view)["keep"] == 0.75).all()
    assert (agents.make(path + ":ready", CONFIG).act(view)["keep"] == 0.5).all()
    assert (agents.make(path + ":function_of:medium=1", CONFIG).act(view)["medium"] == KV).all()


def test_the_interface_takes_classes_objects_and_functions() -> None:
    class Mine:
        def __init__(self, config: HandoverConfig, seed: int = 0) -> None:
            self.made = config.num_ues, seed

        def act(self, view):
            return idle_plans(view.num_envs, view.num_ues)

    def nothing(view):
        return idle_plans(view.num_envs, view.num_ues)

    view = begun().view
    for given, name in ((Mine, "Mine"), (Mine(CONFIG), "Mine"), (nothing, "nothing")):
        policy = agents.make(given, CONFIG, seed=6)
        assert policy.name == name and policy.act(view).shape == (1, 4)
    assert agents.make(Mine, CONFIG, seed=6).policy.made == (4, 6)  # type: ignore[attr-defined]
    again = agents.make(agents.make("cho", CONFIG), CONFIG)
    assert again.name == "cho" and (again.act(view)["medium"] == KV).all()


def test_a_file_that_changed_is_read_anew_and_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, view = write(tmp_path, PLAIN), begun().view
    other = write(tmp_path / "other", PLAIN.replace("0.5", "0.1"))
    policies = [agents.make(path + ":Plain", CONFIG) for path in (first, other)]
    write(tmp_path, PLAIN.replace("0.5", "0.75"))
    policies.append(agents.make(first + ":Plain", CONFIG))
    assert [float(policy.act(view)["keep"][0, 0]) for policy in policies] == [0.5, 0.1, 0.75]


@pytest.mark.parametrize(("text", "name", "says"), [
    (None, "mine.py:Plain", r"the file '.*mine\.py' does not exist"),
    (PLAIN, "mine.py", r"names no class: write .*mine\.py:MyPolicy"),
    (PLAIN, "mine.py:", "names no class"),
    (PLAIN, "mine.py:keep=0.5", "names no class"),
    (PLAIN, "mine.py:Plane", r"mine\.py has no Plane: it has Plain"),
    ("x = 1", "mine.py:Plain", r"has no Plain: define a class with act\(view\)"),
    ("x = 1", "mine.py:x", "x is 1: it must be a class"),
    ("import absent_module_of_test", "mine.py:Plain", "cannot be run: ModuleNotFoundError"),
    ("class Plain\n    pass", "mine.py:Plain", "cannot be run: SyntaxError"),
    ("class Plain:\n    pass", "mine.py:Plain", r"'Plain' has no act\(view\)"),
    ("class Plain:\n    act = 3", "mine.py:Plain", r"'Plain' has no act\(view\)"),
    ("class Plain:\n    reset = 3\n    def act(self, view): pass", "mine.py:Plain", "a reset that cannot be called"),
    ("class Plain:\n    name = 3\n    def act(self, view): pass", "mine.py:Plain", "has the name 3"),
    ("class Plain:\n    def __init__(self): raise OSError('no\\nluck')\n    def act(self, view): pass", "mine.py:Plain",
     "Plain cannot be made: OSError: no luck"),
    ("class Plain:\n    def __init__(self, a, b): pass\n    def act(self, view): pass", "mine.py:Plain:a=1",
     r"Plain needs b: write Plain:b=\.\.\."),
    (PLAIN, "mine.py:Plain:keep=1", "Plain has no argument 'keep': it takes none"),
    ("class Plain:\n    def __init__(self, keep=1): pass\n    def act(self, view): pass", "mine.py:Plain:kep=1",
     "did you mean keep"),
    ("class Plain:\n    def __init__(self, on=True): pass\n    def act(self, view): pass", "mine.py:Plain:on=1",
     "on is '1': it must be true or false"),
    (PLAIN, "mine.py:Plain:", "write Plain:key=value"),
])
def test_what_cannot_be_used_is_named_in_one_line(tmp_path: Path, text: str | None, name: str, says: str) -> None:
    if text is not None:
        write(tmp_path, text)
    with pytest.raises(PolicyError, match=says) as caught:
        agents.make(str(tmp_path / name), CONFIG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "says"), [
    ("absent_module_of_test:Plain", "there is no module 'absent_module_of_test'"),
    ("json.absent:Plain", "there is no module 'json.absent'"),
    ("json:Plain", "json has no Plain"), (3, "3 is not a policy"), (None, "None is not a policy")])
def test_what_is_no_policy_is_named(given, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        agents.make(given, CONFIG)


@pytest.mark.parametrize(("returned", "says"), [
    (None, "returned NoneType"), (np.zeros((1, 4)), r"returned float64 \(1, 4\)"),
    (idle_plans(1, 3), r"returned PLAN \(1, 3\): expected PLAN \(1, 4\)"), (idle_plans(4, 1)[:, 0], r"PLAN \(4,\)"),
    (np.zeros((1, 4), [("target", "i4")]), r"returned records \(1, 4\)"), ([[0] * 4], "returned list")])
def test_anything_but_plans_is_refused(returned, says: str) -> None:
    view = begun().view
    with pytest.raises(PolicyError, match=says):
        agents.make(lambda view: returned, CONFIG).act(view)


def test_who_decides_handovers_where_policies_may() -> None:
    class Sessions:
        def act(self, view):
            return idle_plans(view.num_envs, view.num_ues)

    class Cells(Sessions):
        decides_handovers = True

    config = resolve({"scoring": {"mode": "none"}, "num_ues": 8, "mobility": {"vehicle_share": 1.0},
                      "radio": {"q_out_db": -1000.0}, "actions": {"trigger": "policy"}})
    def handovers(given) -> int:
        core, policy, count = begun(config), agents.make(given, config), 0
        for _ in range(200):
            core.step(policy.act(core.view))
            count += int(core.task.sim.state.flow["handovers"].sum())
        return count

    assert handovers(Sessions) == handovers(Sessions()) > 0
    assert handovers(Cells) == handovers(Cells()) == handovers(lambda view: Sessions().act(view)) == 0


def test_the_example_of_the_page_plays_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    code, line = re.findall(r"```(?:python)?\n(.*?)```", page.split("## Your own policy")[1], re.S)
    write(tmp_path, code)
    monkeypatch.chdir(tmp_path)
    program, script, *arguments = shlex.split(line)
    assert (program, script) == ("python", "evaluate.py")
    command([*arguments, "--quiet", "--out", "out", "--set", "scoring.mode=none", "episode_s=10", "num_ues=4"])
    out = capsys.readouterr().out
    assert "MyPolicy:limit=2000" in out and "ctho" in out
    policy, core, early = agents.make("mine.py:MyPolicy:limit=2500", CONFIG), begun(), 0
    for _ in range(300):
        plans, long = policy.act(core.view), core.view.context_tokens > 2500.0
        assert np.array_equal(plans["medium"], np.where(long, KV, TOKEN)) and (plans["bits"] == 8).all()
        early += int((plans["target"] >= 0).sum())
        core.step(plans)
    assert early > 0

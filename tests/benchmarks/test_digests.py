"""The digests notice a change of the world, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvroam.benchmarks import digests
from kvroam.envs.handover.config import resolve
from kvroam.errors import ConfigError

QUICK = ["num_ues=2", "episode_s=6", "scoring.mode=none"]


@pytest.mark.parametrize("view", digests.VIEWS)
def test_a_digest_depends_on_the_world_alone(view: str) -> None:
    def found(*changes: str) -> str:
        return digests.digest(digests.VIEWS[view]("handover", resolve("handover", [*QUICK, *changes])))

    assert found() == found() != found("radio.measurement_noise_db=1.0001")


def test_the_command_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(digests, "VIEWS", {"parallel": digests.parallel})
    monkeypatch.setattr(digests.registry.task("handover"), "scenarios", ("calm", "rush_hour"))
    file, small = tmp_path / "before.json", ["--quiet", "--set", "num_ues=2"]
    digests.command(["--json", str(file), *small])
    digests.command(["--against", str(file), *small])
    assert "all 2 digests are equal" in capsys.readouterr().out
    before = json.loads(file.read_text())
    before["handover/calm/parallel"] = "0"
    file.write_text(json.dumps(before))
    with pytest.raises(ConfigError, match=r"1 of 2 digests differ: handover/calm/parallel$"):
        digests.command(["--against", str(file), *small])
    with pytest.raises(ConfigError, match="absent"):
        digests.command(["--against", str(tmp_path / "absent.json"), *small])

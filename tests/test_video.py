"""Videos: their frames are those of the episode, and evaluate.py --video writes one or says why not."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvroam import agents
from kvroam.envs import make_core
from kvroam.envs.handover.config import HandoverConfig, resolve
from kvroam.envs.render import Renderer, colours, video
from kvroam.envs.render.history import History
from kvroam.errors import ConfigError
from kvroam.evaluate import command
from kvroam.evaluation.film import film

SMALL = ["scoring.mode=none", "episode_s=2.0", "num_ues=4"]


def experiment() -> HandoverConfig:
    return resolve("handover", SMALL)


def test_a_video_has_the_frames_of_the_episode_from_its_start_on() -> None:
    config = experiment()
    frames = list(film(config, agents.make("cho", config, 0), 3, start_s=0.5, seconds=0.4))
    core, player, history = make_core(config), agents.make("cho", config, 0), History(0)
    core.reset([3])
    player.reset(core.view)
    renderer, expected = Renderer(core, caption="policy cho, seed 3"), []
    for step in range(1, 9):
        core.step(player.act(core.view))
        history.record(core)
        if step >= 5:
            expected.append(renderer.frame(history))
    assert len(frames) == 4
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected, strict=True))


@pytest.mark.parametrize(("start", "seconds", "expected"), [
    (0.0, None, (0, 20)), (1.0, None, (10, 20)), (0.0, 0.5, (0, 4)), (1.9, 5.0, (19, 20)), (2.0, None, (20, 20)),
])
def test_the_frames_of_a_video_lie_within_the_episode(
    start: float, seconds: float | None, expected: tuple[int, int]
) -> None:
    assert video.frames_of(experiment(), start, seconds) == expected


@pytest.mark.parametrize(("start", "seconds"), [(2.1, None), (-1.0, None), (0.0, 0.0), (0.0, -1.0),
                                                (float("nan"), None), (0.0, float("inf"))])
def test_a_time_without_frames_is_refused(start: float, seconds: float | None) -> None:
    with pytest.raises(ConfigError, match="video"):
        video.frames_of(experiment(), start, seconds)


def test_a_gif_has_every_frame_at_its_time_and_keeps_colours_that_are_rare(tmp_path: Path) -> None:
    frames = [np.zeros((60, 80, 3), np.uint8) for _ in range(12)]
    for k, frame in enumerate(frames):
        frame[..., 2] = np.arange(80)  # a gradient that would fill a palette of its own
        frame[:, :, 0] = np.arange(60)[:, None]
        frame[20:23, 5 * k:5 * k + 3] = colours.SKY  # frames that are equal would be joined
        if k >= 8:  # later than the frames from which the palette is made
            frame[10:13, 5 * k:5 * k + 3] = colours.YELLOW
    video.write(tmp_path / "a.gif", frames, fps=10)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 12 and picture.size == (80, 60)
        for k, frame in enumerate(frames):
            picture.seek(k)
            assert picture.info["duration"] == 100
            shown = np.asarray(picture.convert("RGB")).astype(int)
            assert (shown[11, 5 * k + 1] == colours.YELLOW).all() == (k >= 8)
            assert np.abs(shown - frame).max() < 24
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_the_command_writes_a_video_beside_the_results(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--policies", "cho", "ctho", "--episodes", "1", "--quiet", "--out", str(tmp_path), "--set", *SMALL,
                 "--video", str(tmp_path / "v.gif"), "--video-policy", "cho", "--video-start", "1", "--video-seconds",
                 "0.5"]
    assert command.main(arguments) == 0
    assert "v.gif" in capsys.readouterr().out
    with Image.open(tmp_path / "v.gif") as picture:
        assert picture.n_frames == 5 and picture.size == (800, 600)
        assert picture.info["loop"] == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (["--video", "a.avi"], ["a.avi", ".gif", ".mp4"]),
    (["--video", "absent/a.gif"], ["absent", "not a folder that can be written to"]),
    (["--video", "a.gif", "--video-start", "61"], ["61", "60 s"]),
    (["--video", "a.gif", "--video-policy", "cth0"], ["cth0", "ctho"]),
])
def test_a_video_that_cannot_be_made_is_refused_before_anything_runs(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [*arguments, "--policies", "cho", "--out", "out", "--set", "scoring.mode=none"]
    assert command.main(given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert not any(tmp_path.iterdir())


def test_an_mp4_without_its_library_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without_imageio(name: str, *args: Any) -> Any:
        if name.startswith("imageio"):
            raise ImportError(name)
        return find(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_imageio)
    with pytest.raises(ConfigError, match=r"kvroam\[video\]"):
        video.check_target(tmp_path / "a.mp4")
    video.check_target(tmp_path / "a.gif")


def test_an_mp4_is_written_where_its_library_is(tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v2", reason="the extra kvroam[video] is not installed")
    pytest.importorskip("imageio_ffmpeg", reason="the extra kvroam[video] is not installed")
    frames = [np.full((600, 800, 3), 20 * k, np.uint8) for k in range(6)]
    video.write(tmp_path / "a.mp4", frames, fps=10)
    with imageio.get_reader(tmp_path / "a.mp4") as reader:
        shown = [reader.get_data(k) for k in range(6)]
        with pytest.raises(IndexError):
            reader.get_data(6)
    assert shown[0].shape == (600, 800, 3)
    assert shown[5].mean() == pytest.approx(100, abs=6)

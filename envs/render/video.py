"""Videos of an episode: frames one after the other into a GIF (Pillow) or an MP4 (imageio with ffmpeg)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...files import write_whole
from . import colours
from .canvas import load_pygame

SUFFIXES = (".gif", ".mp4")


def check_target(path: Path) -> None:
    """Refuse what could not be written, before an episode is played for it.

    Raises:
        ConfigError: another suffix, a folder that is absent, or a library that the format needs and that is absent.
    """
    from gymnasium.error import DependencyNotInstalled

    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--video {str(path)!r} ends in {path.suffix!r}: choose among {', '.join(SUFFIXES)}")
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"--video {str(path)!r} cannot be written: {str(folder)!r} is not a folder that can be "
                          "written to, or the name is that of a folder")
    try:
        load_pygame()
        if path.suffix.lower() == ".mp4":
            _imageio()
    except DependencyNotInstalled as error:
        raise ConfigError(f"--video {str(path)!r}: {error}") from error


def frames_of(config: Any, start_s: float = 0.0, seconds: float | None = None) -> tuple[int, int]:
    """First and last decision interval of a video that begins at `start_s` and takes `seconds` [s].

    Raises:
        ConfigError: nothing of the episode lies in that time.
    """
    if not (math.isfinite(start_s) and (seconds is None or math.isfinite(seconds))):
        raise ConfigError(f"a video of {seconds} s from {start_s} s: give finite times")
    first = round(start_s / config.interval_s)
    last = config.max_steps
    if seconds is not None:
        last = min(last, first + round(seconds / config.interval_s) - 1)
    if not 0 <= first <= last:
        raise ConfigError(f"a video of {'all' if seconds is None else f'{seconds:g}'} s from {start_s:g} s has no "
                          f"frame: the episode lasts {config.episode_s:g} s in steps of {config.interval_s:g} s")
    return first, last


def write(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write the frames, uint8 [H, W, 3] each, to a .gif or .mp4 file, `fps` of them per second.

    Raises:
        ConfigError: the file cannot be written.
        gymnasium.error.DependencyNotInstalled: an .mp4 without imageio and ffmpeg.
    """
    encode = _write_mp4 if path.suffix.lower() == ".mp4" else _write_gif
    write_whole(path, lambda draft: encode(draft, frames, fps))


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    from PIL import Image

    images = iter(map(Image.fromarray, frames))
    # One palette for all frames, from the first ones: colours that are chosen anew for each frame would flicker, and
    # pixels that stay the same would not compress.
    sample = [image for _, image in zip(range(8), images, strict=False)]
    sheet = Image.new("RGB", (sample[0].width, sample[0].height * len(sample)))
    for k, image in enumerate(sample):
        sheet.paste(image, (0, k * image.height))
    # What is small must keep its colour as well: those that mean something are in, whatever the frames are full of.
    fixed = [*colours.ALL, *(colours.blend(colour, colours.GROUND, 0.45) for colour in colours.ALL)]
    common = sheet.quantize(colors=256 - len(fixed)).getpalette() or []
    chosen = Image.new("P", (1, 1))
    chosen.putpalette([part for colour in fixed for part in colour] + common)
    paletted = (image.quantize(palette=chosen, dither=Image.Dither.NONE) for image in chain(sample, images))
    # GIF counts in hundredths of a second.
    next(paletted).save(path, format="GIF", save_all=True, append_images=paletted, loop=0, optimize=True,
                        duration=10 * max(2, round(100.0 / fps)))


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    # 600 lines are no multiple of 16, for which imageio would stretch them; the encoder itself needs an even number.
    with _imageio().get_writer(path, fps=fps, macro_block_size=2) as writer:
        for frame in frames:
            writer.append_data(frame)


def _imageio() -> Any:
    try:
        import imageio.v2
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        from gymnasium.error import DependencyNotInstalled

        raise DependencyNotInstalled("an .mp4 needs imageio and ffmpeg: run `pip install 'kvroam[video]'`, or choose "
                                     "a .gif") from error
    return imageio.v2

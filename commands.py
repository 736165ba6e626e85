"""What every command line has in common: options, one line for a user's error, one torch thread, exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import KvroamError, KvroamWarning
from .threads import torch_threads

Options = Callable[[argparse.ArgumentParser], object]
_THREADS = "torch_threads"


class Command:
    """A command line: options, and what is done with them.

    Args:
        prog: name of the program, as a user calls it.
        doc: docstring of its module; the help text is its first paragraph.
        options: adds the options to the parser.
        execute: does the work; `given` among the arguments that it gets is what was typed.
        torch: it uses torch with one thread, or as many as `add_threads` lets the user ask for: on a busy machine of
            two cores, two were up to 70 times slower. False leaves torch's threads as they are.

    Calling it raises what goes wrong; `main` prints it and returns an exit code.
    """

    def __init__(self, prog: str, doc: str | None, options: Options, execute: Callable[[argparse.Namespace], object],
                 torch: bool = True) -> None:
        self.prog, self._doc, self._options, self._execute, self._torch = prog, doc, options, execute, torch

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Parse the arguments (default: those of the process) and do the work."""
        text = (self._doc or "").strip().partition("\n\n")[0]
        parser = argparse.ArgumentParser(prog=self.prog, description=" ".join(text.split()))
        self._options(parser)
        args = parser.parse_args(arguments)
        args.given = sys.argv[1:] if arguments is None else list(arguments)
        if not self._torch:
            self._execute(args)
            return
        with torch_threads(getattr(args, _THREADS, 1)):
            self._execute(args)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run it as a program; returns the exit code of `run`."""
        return run(self.prog, self, arguments)


def run(name: str, command: Callable[[Any], object], arguments: Sequence[str] | None = None) -> int:
    """Run `command(arguments)` as a program; a user's error becomes one line on stderr.

    Returns:
        The exit code: 0; 2 for an error that the user can repair; 130 when interrupted from the keyboard; 141 when
        nobody reads the output any more (`| head -1`).
    """
    try:
        with _one_line_warnings(name):
            try:
                command(arguments)
            finally:
                sys.stdout.flush()
    except KvroamError as error:
        print(f"{name}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes once more at its end, where the error would be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def add_set(parser: argparse.ArgumentParser) -> None:
    """`--set KEY=VALUE ...`, in `overrides`."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change a key of the configuration, e.g. --set backhaul.capacity_bps=1e9")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_out(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    """`--out FOLDER`, a path."""
    parser.add_argument("--out", type=Path, default=Path(default), metavar="FOLDER",
                        help=f"folder for {what} (default: %(default)s)")


def add_seed(parser: argparse.ArgumentParser, default: int | None = 0, what: str = "seed of the first episode") -> None:
    """`--seed N`."""
    shown = "" if default is None else " (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=default, help=f"{what}{shown}")


def add_episodes(parser: argparse.ArgumentParser, episodes: int, seed: int, per: str = "scenario") -> None:
    """`--episodes N` and `--seed N`, `--set` and `--quiet`: what is played, and how it is shown."""
    parser.add_argument("--episodes", type=int, default=episodes, help=f"per {per} (default: %(default)s)")
    add_seed(parser, seed)
    add_set(parser)
    add_quiet(parser)


def add_scenarios(parser: argparse.ArgumentParser, default: Sequence[str], which: str = "%(default)s") -> None:
    """`--scenarios NAME ...`."""
    parser.add_argument("--scenarios", nargs="+", default=list(default), metavar="NAME",
                        help=f"shipped names, YAML files or NAME=FILE (default: {which})")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`, a path or None."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """`--threads N`, which Command lets torch use."""
    parser.add_argument("--threads", type=_count, default=1, metavar="N", dest=_THREADS,
                        help="torch threads (default: %(default)s)")


def settings_of(overrides: Sequence[str]) -> str:
    """The `--set` options, as they are written on a command line after a space; nothing where there are none."""
    return "".join(f" --set {override}" for override in overrides)


def _count(text: str) -> int:
    """An integer above 0; argparse says so otherwise."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


@contextmanager
def _one_line_warnings(name: str) -> Iterator[None]:
    """Print a KvroamWarning as one line; other warnings stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", KvroamWarning)
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, KvroamWarning):
                print(f"{name}: warning: {_one_line(message)}", file=sys.stderr)
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _one_line(message: object) -> str:
    return " ".join(str(message).split())

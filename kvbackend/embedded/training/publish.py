"""Make the shipped files out of a training folder: `python -m kvroam.kvbackend.embedded.training.publish --run DIR`.

Stores the weights in half precision, copies tokenizer and log, samples the texts, examines the result, and writes
the manifest. Run it after `train`; it takes a few minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from ....commands import Command
from ....errors import ModelError
from ....files import make_folder
from ..manifest import ASSETS, write_manifest
from . import report, sample
from .network import build_model, write_model
from .phases import PHASES


def publish(run: Path, folder: Path) -> None:
    """Write weights, config, tokenizer, log and manifest of a finished training.

    Args:
        run: Folder that `train` wrote.
        folder: Folder of the assets; other files in it stay.

    Raises:
        ModelError: `run` holds no checkpoint.
        ConfigError: `folder` cannot be made.
    """
    import torch
    from safetensors.torch import load_file

    done = [phase.name for phase in PHASES if (run / f"phase_{phase.name}.safetensors").exists()]
    if not done or not (run / "training_log.json").exists():
        raise ModelError(f"publish: {run} holds no training_log.json and phase_*.safetensors; train into it first")
    model = build_model(torch.float32)
    model.load_state_dict(load_file(run / f"phase_{done[-1]}.safetensors"), strict=False)
    make_folder(folder)
    write_model(model, folder)
    for name in ("tokenizer.json", "training_log.json"):
        shutil.copyfile(run / name, folder / name)
    log = json.loads((run / "training_log.json").read_text())
    packages = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
    write_manifest(
        folder,
        {
            "seed": log["seed"],
            "command": log.get("command", f"python -m kvroam.kvbackend.embedded.training.train --seed {log['seed']}"),
            "last_phase": done[-1],
            **({"note": log["note"]} if "note" in log else {}),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        },
    )


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--run", type=Path, required=True, help="folder that train wrote")
    parser.add_argument("--folder", type=Path, default=ASSETS, help="folder of the assets")
    parser.add_argument("--quick", action="store_true", help="examine a small sample")


def execute(args: argparse.Namespace) -> None:
    """Publish, sample the texts, and report."""
    publish(args.run, args.folder)
    target = ["--folder", str(args.folder)]
    sample.command(target)
    report.command([*target, *(["--quick"] if args.quick else [])])


command = Command("python -m kvroam.kvbackend.embedded.training.publish", __doc__, options, execute)

if __name__ == "__main__":
    sys.exit(command.main())

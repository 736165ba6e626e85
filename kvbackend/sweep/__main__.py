"""`python -m kvroam.kvbackend.sweep`."""

import sys

from ...commands import run
from .command import command

sys.exit(run("kvroam-sweep", command))

"""`python -m kvroam.kvbackend.sweep`."""

import sys

from ...errors import run_command
from .command import command

sys.exit(run_command("kvroam-sweep", command))

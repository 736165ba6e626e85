"""`python -m kvroam.kvbackend.sweep`."""

import sys

from .command import command

sys.exit(command.main())

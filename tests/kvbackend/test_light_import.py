"""Configurations import the backend's settings; that must not cost seconds of torch."""

import subprocess
import sys

import kvroam.kvbackend as package


def test_importing_the_package_and_its_settings_does_not_import_torch():
    code = (
        "import sys, kvroam.kvbackend; from kvroam.kvbackend import KVSettings, TransferPlan; TransferPlan(keep=.5);"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_imported():
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))

"""What the tests of this folder are told on their command lines, and how they run the tool."""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import subprocess
import sys
import unittest

facts = argparse.Namespace()


def main():
    """Takes our own options off the command line and hands the rest to unittest."""
    parser = argparse.ArgumentParser()
    for option in ("--source", "--build", "--static-program", "--stub"):
        parser.add_argument(option, type=pathlib.Path)
    parser.add_argument("--libdir")
    _, rest = parser.parse_known_args(namespace=facts)
    unittest.main(module="__main__", argv=sys.argv[:1] + rest)


def clean_environment(**more):
    """This process's environment without settings of ours, with `more` added."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZPS_") and name != "LD_PRELOAD"}
    return {**kept, "ZPS_TEST_CONFIG_FILE": "/nonexistent", **more}


def run(*command, **more):
    """Runs a command to its end: a CompletedProcess with text output. `more` is added to the environment."""
    return subprocess.run([str(word) for word in command], env=clean_environment(**more), capture_output=True, text=True, timeout=60)

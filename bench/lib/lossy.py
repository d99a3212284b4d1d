"""`bench/run loss`: frames lost at random in both directions, on the default wire and on the kernel's own veth pair.

A memif loses nothing, and over loopback each frame would pass the place where frames are lost twice: neither is measured. What is lost is what the interface
handles as one frame, which may be a segment of many kilobytes on either side.
"""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import subprocess
import sys

import tables

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "lib"))
from loss import Loss  # noqa: E402


class LossTable(tables.Table):
    possible = ("default", "veth")

    def measure(self, side, case):
        with Loss(interface_to(side.values["address"]), int(dict(case.values)["loss"])):
            return super().measure(side, case)


def interface_to(address):
    told = subprocess.run(["ip", "route", "get", address], check=True, capture_output=True, text=True).stdout.split()
    return told[told.index("dev") + 1]


def measure(options):
    try:
        return tables.measure("loss", options, LossTable)
    except OSError as error:
        print(f"loss: skipped, the kernel cannot lose frames: {error}", flush=True)
        return [], []

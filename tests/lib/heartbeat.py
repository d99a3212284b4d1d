"""Whether the machine stood still: threads that wake up all the time, one on each processor, and know how late they were.

A time that was measured meanwhile says nothing where the gap is long: a virtual machine that is stopped, a group that is frozen, a processor that somebody keeps.
"""
# SPDX-License-Identifier: BSD-3-Clause
import os
import threading
import time

PERIOD = 0.002  # seconds


class Heartbeat:
    """Use as a context manager."""

    def __init__(self):
        self._stopped = False
        self._gaps = {cpu: [] for cpu in os.sched_getaffinity(0)}  # those that are longer than they should be: begin and end
        self._threads = [threading.Thread(target=self._beat, args=(cpu,), daemon=True) for cpu in self._gaps]

    def _beat(self, cpu):
        os.sched_setaffinity(0, {cpu})  # of this thread
        last = time.monotonic()
        while not self._stopped:
            time.sleep(PERIOD)
            now = time.monotonic()
            if now - last > 2 * PERIOD:
                self._gaps[cpu].append((last, now))
            last = now

    def longest_gap(self, begin, end):
        """In seconds, of those that touch this time (of time.monotonic())."""
        time.sleep(2 * PERIOD)  # one that has not ended yet
        return max((gap[1] - gap[0] for gaps in self._gaps.values() for gap in list(gaps) if gap[0] < end and gap[1] > begin), default=0.0)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopped = True
        for thread in self._threads:
            thread.join()

"""Memory of the process that asks, for benchmarks; Linux only."""

import pathlib
import re


def memory(field):
    """Return a figure of this process in MiB: "VmRSS" is in use now, "VmHWM" the peak."""
    status = pathlib.Path("/proc/self/status").read_text()
    [kilobytes] = re.findall(rf"^{field}:\s+(\d+) kB$", status, re.M)
    return int(kilobytes) / 2**10


def fresh_peak():
    """Start the peak afresh, and return what is in use now, MiB.

    Loading TensorFlow took more for a moment than is in use then.
    """
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")

"""Memory of a process, for benchmarks; Linux only."""

import pathlib
import re


def memory(field, process="self"):
    """Return a figure of a process in MiB: "VmRSS" is in use now, "VmHWM" the peak."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    [kilobytes] = re.findall(rf"^{field}:\s+(\d+) kB$", status, re.M)
    return int(kilobytes) / 2**10


def fresh_peak():
    """Start the peak afresh, and return what is in use now, MiB.

    Loading TensorFlow took more for a moment than is in use then.
    """
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")

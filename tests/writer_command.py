"""A command for tests of pipelines: it writes small files, and nothing of the package is run."""

import pathlib
import sys

from wsss_tf.pipelines import commands as commands_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A command of the package's kind that writes numbered files, those that are not there yet.
WRITER = """
import pathlib, sys, time
from absl import flags
from wsss_tf import command
from wsss_tf.errors import UserError

folder = flags.DEFINE_string("folder", None, "")
text = flags.DEFINE_string("text", "", "")
count = flags.DEFINE_integer("count", 0, "")
status = flags.DEFINE_integer("status", 0, "")
until = flags.DEFINE_string("until", None, "")

def main():
    path = pathlib.Path(folder.value)
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count.value):
        if not (path / str(i)).exists():
            half = path.with_name(f".{path.name}.{i}")  # never half a file, as all commands do
            half.write_text(text.value)
            half.replace(path / str(i))
            time.sleep(0.01)
            print(text.value, i)
    while until.value and not pathlib.Path(until.value).exists():
        time.sleep(0.01)
    if status.value == 2:
        raise UserError("this value is wrong.")
    if status.value == 9:
        import os
        os.kill(os.getpid(), 9)
    sys.exit(status.value)

command.run(main)
"""


def use_writer(folder, monkeypatch):
    """Have it take the place of every command that a pipeline runs."""
    script = folder / "writer.py"
    script.write_text(WRITER)
    monkeypatch.setattr(
        commands_lib, "command_line", lambda a: [sys.executable, str(script), *a[1:]]
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

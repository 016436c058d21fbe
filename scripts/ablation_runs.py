"""What a folder of an ablation's runs consists of: RUN/settings.gin and RUN/scores.json.

Not a script of its own: `ablation.py` and `ablate_seam.py` share it. settings.gin is all that is
set for a run; scores.json has "train_seconds" once the network is trained, and its scores.
"""

import json
import subprocess
import sys
import time

from wsss_tf.errors import UserError
from wsss_tf.files import run_folder


def read_scores(run_dir):
    """Return what is known of a run; {} as long as it is not trained."""
    path = run_dir / "scores.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def check_settings(run_dir, settings):
    """Refuse a run folder that was made with other settings.

    Raises:
      UserError: RUN/settings.gin is there and another text.
    """
    path = run_dir / "settings.gin"
    if not path.is_file():
        return
    before, now = (text.splitlines() for text in (path.read_text(), settings))
    changed = [f"now {line}" for line in now if line not in before]
    changed += [f"then {line}" for line in before if line not in now]
    if changed:
        raise UserError(
            f"{run_dir}: was made with other settings ({changed[0]}); use another --output."
        )


def run_alone(run, run_dir):
    """Start the calling script again for one run: TensorFlow's state and memory start afresh.

    Args:
      run: value of its --run, "NAME:SEED".
      run_dir: the run's folder, for the message.

    Raises:
      UserError: it failed.
    """
    if subprocess.run([sys.executable, *sys.argv, f"--run={run}"]).returncode:
        raise UserError(f"{run_dir} failed, see above; the same command goes on.")


def train_once(recipe, run_dir, settings):
    """Train a run unless it is trained, going on where it was interrupted.

    "train_seconds" is None for a run that was interrupted: its time would be that of a part only.
    """
    from wsss_tf.runs.training_run import train

    if "train_seconds" in read_scores(run_dir):
        return
    is_new = not (run_dir / "checkpoints").is_dir()
    run_folder.write_text(run_dir / "settings.gin", settings)
    start = time.time()
    train(recipe, run_dir)
    seconds = time.time() - start if is_new else None
    run_folder.write_json(run_dir / "scores.json", {"train_seconds": seconds})


def add_scores(run_dir, scores):
    """Add scores to scores.json."""
    run_folder.write_json(run_dir / "scores.json", {**read_scores(run_dir), **scores})

#!/usr/bin/env bash
# From nothing to scored masks: makes the environment, trains the CAM baseline and SEAM on the
# embedded data set, writes CAMs and pseudo labels for its validation split, and scores both.
#
#   scripts/quickstart.sh [FOLDER]      seven minutes on two CPU cores; FOLDER is runs/quickstart
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/quickstart}

source scripts/environment.sh
make_environment

started=$SECONDS
overlays=(--gin_file=gin/data/shapes.gin --gin_file=gin/size/small.gin)
for method in cam seam; do
  echo "=== $method: train ==="
  "$python" -m wsss_tf.train --gin_file=gin/$method.gin "${overlays[@]}" --run_dir="$out/$method"
  echo "=== $method: class activation maps and pseudo labels ==="
  "$python" -m wsss_tf.infer --run_dir="$out/$method" --split=val
  echo "=== $method: scores ==="
  "$python" -m wsss_tf.evaluate --run_dir="$out/$method" --split=val
done

"$python" - "$out" <<'PYTHON'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
print("\nBest-threshold mean IoU on the val split of the drawn scenes, no mask used in training:")
for method in ("cam", "seam"):
    metrics = json.loads((out / method / "metrics.json").read_text())
    print(f"  {method:5} {100 * metrics['miou']:6.2f}   report: {out / method / 'report.html'}")
PYTHON
echo "$((SECONDS - started)) seconds after the environment was made."

#!/usr/bin/env bash
# From image labels to a segmentation network on the embedded data set: makes the environment, trains
# the CAM baseline, then runs the whole pipeline (SEAM, dense CRF, AffinityNet, random walk, DeepLab,
# export), scores what comes out of each and says where the report is.
#
#   scripts/quickstart.sh [FOLDER]      18 to 49 minutes on two CPU cores; FOLDER is runs/quickstart
#
# The same command goes on where it was interrupted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/quickstart}

source scripts/environment.sh
make_environment

started=$SECONDS
data=--gin_file=gin/data/shapes.gin
small=--gin_file=gin/size/small_shapes.gin

score_cams() {
  echo "=== $1: class activation maps of the val split, and their scores ==="
  "$python" -m wsss_tf.infer --run_dir="$1" --split=val
  "$python" -m wsss_tf.evaluate --run_dir="$1" --split=val
}

echo "=== CAM baseline: train ==="
"$python" -m wsss_tf.train --gin_file=gin/cam.gin $data $small --run_dir="$out/cam"
score_cams "$out/cam"
if "$python" -c "import pydensecrf" 2>/dev/null; then
  echo "=== SEAM: from image labels to a segmentation network ==="
  # DeepLab for half as long as in the recipe, to save some minutes.
  "$python" -m wsss_tf.pipeline --gin_file=gin/pipelines/seam_shapes.gin $data \
    --gin_bindings=segmentation/Recipe.epochs=6 --run_dir="$out/seam"
else
  echo "=== SEAM: train; pydensecrf (Python 3.10 to 3.12) is not there, so no more than its CAMs ==="
  "$python" -m wsss_tf.train --gin_file=gin/seam.gin $data $small --run_dir="$out/seam/cam"
fi
score_cams "$out/seam/cam"

"$python" - "$out" <<'PYTHON'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
print("\nMean IoU of CAMs on the val split, best background threshold; no mask used in training:")
for name, run in (("CAM", out / "cam"), ("SEAM", out / "seam" / "cam")):
    metrics = json.loads((run / "metrics_val.json").read_text())
    print(f"  {name:5} {100 * metrics['miou']:6.2f}   report: {run / 'report_val.html'}")
results = out / "seam" / "results.md"
if results.is_file():
    print(f"\n{results.read_text()}\nreport: {out / 'seam' / 'report.html'}")
PYTHON
echo "$((SECONDS - started)) seconds after the environment was made."

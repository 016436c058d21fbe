#!/usr/bin/env bash
# From image labels to masks and an exported segmentation network.
#
#   scripts/quickstart.sh [--dry_run] [OUT]
#       on drawn scenes that come with the package, in about five minutes on two processor cores:
#       a CAM baseline, then SEAM, dense CRF, AffinityNet, random walk and DeepLab, each scored
#
#   scripts/quickstart.sh [--dry_run] --photos=FOLDER [OUT]
#       on pictures of your own, of which FOLDER/image_labels.csv says what they show
#
# OUT, by default runs/quickstart or runs/photos of this repository, keeps everything; the same
# command again goes on where it was interrupted. What it needs is installed into .venv; that comes
# first and takes minutes more. --dry_run stops after that, and says what there is to do.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

refuse() {
  echo "error: $1" >&2
  exit 2
}

# Prints path $1 as it is from any folder.
absolute() {
  if [[ $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi
}

photos='' out='' dry_run=''
for argument; do
  case $argument in
    -h | --help)
      usage
      exit
      ;;
    --dry_run) dry_run=$argument ;;
    --photos=?*) photos=$(absolute "${argument#*=}") ;;
    --photos | --photos=) refuse "--photos needs a folder: --photos=FOLDER" ;;
    -*) refuse "there is no option $argument; see --help" ;;
    '') refuse "the folder to keep everything in is empty; see --help" ;;
    *)
      [[ -z $out ]] || refuse "unexpected argument $argument; see --help"
      out=$(absolute "$argument")
      ;;
  esac
done
if [[ -n $photos && ! -f $photos/image_labels.csv ]]; then
  refuse "$photos: no image_labels.csv in it, which says what each picture shows"
fi

cd "$root"
source scripts/environment.sh
make_environment ${photos:+photos}

exec "$python" scripts/quickstart.py ${photos:+--photos="$photos"} $dry_run \
  --run_dir="${out:-runs/$([[ -n $photos ]] && echo photos || echo quickstart)}"

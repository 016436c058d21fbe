"""Size and latency of an answer: the mask as a PNG against the mask as JSON numbers, in one run.

    python scripts/serve/compare_answers.py --input=FOLDER --model_dir=DIR [--requests=50]

Beside the exported model (the highest version in DIR) a second one is made of it, which gives the
same masks as numbers, [B, H, W]. Both run in the tests' stand-in server, and each picture is asked
of both in turn, by REST. The sizes are those of the answers' bodies; the real server writes JSON
faster than the stand-in, whose writer is Python's.
"""

import argparse
import base64
import io
import json
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import requests
import tensorflow as tf
from load_test import stand_in
from PIL import Image

from wsss_tf.files import images
from wsss_tf.serving.client import find_pictures
from wsss_tf.serving.versions import latest_version


def save_numbers_model(model_dir, path):
    """Write a SavedModel that answers with the masks of another one as numbers."""
    model = tf.saved_model.load(str(model_dir))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def masks(image_bytes):
        [mask_bytes] = tf.unstack(
            model.signatures["serving_default"](image_bytes=image_bytes)["mask_bytes"], num=1
        )
        return {"masks": tf.cast(images.decode_mask(mask_bytes), tf.int32)[None]}

    saved = tf.Module()
    saved.model = model
    tf.saved_model.save(saved, str(path), signatures=masks)


def ask(session, url, model, contents):
    """Return (bytes of the body, seconds until the mask is there as an array, the mask)."""
    begin = time.perf_counter()
    body = {"instances": [{"b64": base64.b64encode(contents).decode("ascii")}]}
    answer = session.post(f"{url}/v1/models/{model}:predict", json=body, timeout=300)
    answer.raise_for_status()
    [row] = answer.json()["predictions"]
    if isinstance(row, dict):
        mask = np.array(Image.open(io.BytesIO(base64.b64decode(row["mask_bytes"]["b64"]))))
    else:
        mask = np.array(row, np.uint8)
    return len(answer.content), time.perf_counter() - begin, mask


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="folder of pictures")
    parser.add_argument("--model_dir", required=True, help="folder of versions")
    parser.add_argument("--requests", type=int, default=50)
    arguments = parser.parse_args()
    pictures = [path.read_bytes() for path in find_pictures(arguments.input).values()]
    with tempfile.TemporaryDirectory() as folder:
        latest = pathlib.Path(arguments.model_dir) / str(latest_version(arguments.model_dir))
        save_numbers_model(latest, pathlib.Path(folder) / "1")
        with stand_in({"png": arguments.model_dir, "numbers": folder}) as urls:
            session, rows = requests.Session(), {"png": [], "numbers": []}
            for contents in pictures[:4]:  # warm up
                for model in rows:
                    ask(session, urls[0], model, contents)
            for i in range(arguments.requests):
                masks = []
                for model, row in rows.items():
                    size, seconds, mask = ask(session, urls[0], model, pictures[i % len(pictures)])
                    row.append((size, seconds, mask.size))
                    masks.append(mask)
                if not np.array_equal(*masks):
                    raise SystemExit("error: the two masks differ")
    for model, values in rows.items():
        sizes, seconds, pixels = np.array(values).T
        print(
            json.dumps(
                {
                    "answer": model,
                    "requests": len(values),
                    "mean_pixels": round(pixels.mean()),
                    "mean_bytes": round(sizes.mean()),
                    "p50_ms": round(1000 * float(np.median(seconds)), 1),
                    "p95_ms": round(1000 * float(np.percentile(seconds, 95)), 1),
                }
            )
        )


if __name__ == "__main__":
    main()

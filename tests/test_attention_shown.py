"""Attention maps of a run: in TensorBoard while it trains, in the report when it is scored."""

import base64
import io
import re

import numpy as np
import pytest
import tensorflow as tf
from as_user import ROOT, ok
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsss_tf.files import images
from wsss_tf.runs import recipe as recipe_lib
from wsss_tf.runs.training_run import train


@pytest.mark.large
def test_prior_in_tensorboard_and_report(tmp_path):
    recipe = recipe_lib.load(["gin/cpnet_ade20k.gin", str(ROOT / "tests/data/tiny_attention.gin")])
    train(recipe, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"tensors": 0})
    events.Reload()
    tensors = events.Tensors("attention")
    picture = tf.io.decode_png(tensors[0].tensor_proto.string_val[2]).numpy()
    # Two crops beside each other, 4 pixels between them, and one pixel marked in each.
    assert picture.shape == (48, 2 * (48 + 4), 3)
    assert ((picture == [0, 255, 0]).all(-1).sum(0) == 7).sum() == 2

    source = recipe.source(split="val")
    for i, image_id in enumerate(source.ids):
        mask = source.load(tf.constant(i))["mask"].numpy()
        images.save_mask(tmp_path / f"predictions/{image_id}.png", mask)
    ok("evaluate", f"--run_dir={tmp_path}", "--report_images=2")
    page = (tmp_path / "report.html").read_text()
    figure = r'data:image/jpeg;base64,([^"]*)"[^>]*><figcaption>context_prior: (.*?)</figcaption>'
    found = re.findall(figure, page)
    assert {name for _, name in found} <= set(source.class_names[1:])
    assert page.count("What goes with the marked pixel") == 2
    for data, _ in found:
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
        assert drawn.shape == (48, 48, 3)
        assert (drawn[..., 1] - drawn[..., 0] > 60).any()  # the mark, as far as JPEG keeps it

    # Without the network there are no maps to draw, and that is said.
    (tmp_path / "checkpoints/last.keras").unlink()
    out = ok("evaluate", f"--run_dir={tmp_path}", "--report_images=2")
    assert "no network in this run folder: the report is without attention maps" in out
    assert "context_prior:" not in (tmp_path / "report.html").read_text()

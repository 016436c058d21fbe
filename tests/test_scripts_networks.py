"""The scripts about CPNet and SANet: ablation tables, counts of operations, pictures."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from as_user import ROOT, run_script, user_error
from keras import layers
from PIL import Image
from tiny_backbone import tiny_backbone

from wsss_tf.models.cpnet import cpnet_network


def load_script(name):
    """Return a script as a module; its flags are taken out again, as scripts share names."""
    known = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for flag in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, flag)
    return module


# === Ablations ===


def scores(miou, dense=None):
    made = {"logits": {"miou": miou, "pixel_accuracy": 0.9}, "postprocessed": None}
    if dense is not None:
        made["dense_logits"] = {"miou": dense, "pixel_accuracy": 0.8}
    return {"train_seconds": 60.0, "val": made}


def test_table_of_finished_runs(tmp_path):
    for name, seed, value in [("se50", 0, 0.5), ("se50", 1, 0.6), ("sanet50", 0, 0.7)]:
        (tmp_path / f"{name}_{seed}").mkdir()
        made = scores(value, 0.25 if name == "sanet50" else None)
        (tmp_path / f"{name}_{seed}/scores.json").write_text(json.dumps(made))
    arguments = [f"--output={tmp_path}", "--table=modules"]
    result = run_script("ablate_sanet", *arguments, "--rows=se50", "--seeds=0,1")
    assert result.returncode == 0, result.stderr
    assert "| FCN50-SE | 55.00 ± 7.07 | 90.00 ± 0.00 | 2 | 1.0 | 44.60 | 76.00 |" in result.stdout
    result = run_script("ablate_sanet", *arguments, "--rows=se50,sanet50", "--seeds=0")
    table = (tmp_path / "table.md").read_text()
    assert result.stdout == table
    assert "| FCN50-SE | 50.00 | 90.00 | – | 1 | 1.0 | 44.60 | 76.00 |" in table
    assert "| SANet50 | 70.00 | 90.00 | 25.00 | 1 | 1.0 | 49.00 | 78.90 |" in table
    assert "sanet50,0,dense_logits,0.2500,0.8000,60" in (tmp_path / "table.csv").read_text()
    # Scores on another split are other scores; other settings are another run.
    (tmp_path / "se50_0/settings.gin").write_text("recipe.Recipe.epochs = 7\n")
    result = run_script("ablate_sanet", *arguments, "--rows=se50", "--seeds=0", "--dry_run")
    assert result.returncode == 2
    assert "made with other settings" in result.stderr
    (tmp_path / "se50_0/settings.gin").unlink()
    result = run_script(
        "ablate_sanet", *arguments, "--rows=se50", "--seeds=0", "--dry_run", "--split=test"
    )
    assert "done" not in result.stdout
    result = run_script("ablate_sanet", *arguments, "--rows=se50", "--seeds=0", "--dry_run")
    assert result.stdout.endswith("se50_0: done\n")


@pytest.mark.parametrize(
    ("script", "table", "count"),
    [
        ("ablate_cpnet", "components", 9),
        ("ablate_cpnet", "weights", 7),
        ("ablate_sanet", "modules", 6),
        ("ablate_sanet", "losses", 4),
    ],
)
def test_dry_run_loads_every_row(tmp_path, script, table, count):
    where = (f"--output={tmp_path}", "--gin_file=gin/data/shapes.gin")
    result = run_script(script, "--dry_run", "--seeds=7", f"--table={table}", *where)
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()
    assert len(rows) == count
    assert all("_7: " in row for row in rows)
    assert not list(tmp_path.iterdir())


def test_wrong_row_and_binding(tmp_path):
    result = run_script("ablate_cpnet", f"--output={tmp_path}", "--rows=cpnet5")
    user_error(result, "['cpnet5'] unknown")
    user_error(run_script("ablate_cpnet", "--dry_run"), "--output is missing")


# === Operations ===


def test_multiply_accumulates_by_hand():
    image = keras.Input((8, 12, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same")(image)  # 4 x 6
    side = layers.Conv2D(99, 1)(x)  # not on the way to the result
    x = layers.DepthwiseConv2D(5, padding="same")(x)
    x = layers.Dense(7)(layers.GlobalAveragePooling2D()(x))
    net = keras.Model(image, {"logits": x, "side": side})
    function = tf.function(lambda x: net(x)["logits"], autograph=False).get_concrete_function(
        tf.TensorSpec([1, 8, 12, 3])
    )
    count = load_script("benchmark_models").multiply_accumulates(function, net)
    assert count == 4 * 6 * 16 * 27 + 4 * 6 * 16 * 25 + 16 * 7


# === Pictures ===


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)


def test_show_attention_as_a_user_runs_it(image, tmp_path):
    net = cpnet_network(3, crop_size=(32, 48), backbone=tiny_backbone)
    (tmp_path / "checkpoints").mkdir()
    net.save(tmp_path / "checkpoints/last.keras")
    Image.fromarray(image).save(tmp_path / "street.png")
    arguments = [f"--run_dir={tmp_path}", f"--image={tmp_path}/street.png"]
    arguments.append(f"--output={tmp_path}/drawn")
    result = run_script("show_attention", *arguments, "--pixel=40,3")
    assert result.returncode == 2
    assert "--pixel=40,3: give ROW,COLUMN inside the picture of 40 x 70" in result.stderr
    result = run_script("show_attention", *arguments, "--pixel=12,3")
    assert result.returncode == 0, result.stderr
    drawn = {path.name: Image.open(path) for path in (tmp_path / "drawn").iterdir()}
    stem = "street_12_3_context_prior"
    assert set(drawn) == {f"{stem}.png", f"{stem}_overlay.png"}
    assert drawn[f"{stem}.png"].size == (48, 32)
    assert np.asarray(drawn[f"{stem}_overlay.png"])[12, 3].tolist() == [0, 255, 0]

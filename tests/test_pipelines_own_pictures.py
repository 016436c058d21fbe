"""Plans for a folder of the user's own pictures."""

import gin
import numpy as np
import pytest
from PIL import Image
from test_pipelines_plan import FULL, RUN, TINY, TRAINED, changed, inputs, make, prepare

from wsss_tf.data.fingerprint import fingerprint
from wsss_tf.data.folder import folder_source
from wsss_tf.data.shapes import shapes_source
from wsss_tf.errors import UserError
from wsss_tf.pipelines import plan as plan_lib
from wsss_tf.pipelines.settings import load_pipeline
from wsss_tf.runs import recipe as recipe_lib


@pytest.fixture(autouse=True)
def _prepared(monkeypatch):
    prepare(monkeypatch)


@pytest.fixture
def pictures(tmp_path):
    """Four pictures with labels, and masks of two of them."""
    root = tmp_path / "own"
    rng = np.random.default_rng(0)
    for i in range(4):
        picture = Image.fromarray(rng.integers(0, 255, (40, 52, 3), dtype=np.uint8))
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        picture.save(root / f"JPEGImages/{i}.png")
    (root / "image_labels.csv").write_text("image,labels\n0,cat\n1,dog\n2,cat dog\n3,dog\n")
    return root


def of_folder(root, *bindings):
    bindings = (
        f"folder_source.root='{root}'",
        "Recipe.train_split='all'",
        "Recipe.validation_split='all'",
        *bindings,
    )
    return make(*bindings, files=[*TINY, "gin/data/folder.gin"])


def test_pictures_without_masks(pictures):
    plan = of_folder(pictures)
    assert not plan.score.has_masks
    scores = next(stage for stage in plan.stages if stage.name == "segmentation_scores")
    assert [step[0] for step in scores.steps] == ["infer"]
    with pytest.raises(UserError, match="full_supervision needs masks"):
        of_folder(pictures, FULL)


def with_folder(root, *bindings):
    """Plan what `--data` of the command does."""
    return make_of(recipe_lib.with_folder(root, TINY, ["Pipeline.score_split=None", *bindings]))


def make_of(settings):
    return plan_lib.make_plan(load_pipeline(*settings), *settings, RUN)


def val_of(plan):
    """Return the validation split that the network is scored on, None where there is none."""
    trained = plan.trained["segmentation"]
    split = trained.recipe.validation_split
    assert (split is None) == (plan.planned["segmentation_scores"].stage is None)
    return None if split is None else trained.true_source(split)


@pytest.mark.parametrize("name", ['it\'s "mine"', "Größe 😀, 100 %", "long name " * 20])
def test_a_folder_of_any_name_is_one_flag(pictures, name, capsys):
    root = pictures.rename(pictures.parent / name)
    plan = with_folder(root)
    assert "Recipe.validation_split = None" in capsys.readouterr().out
    assert (plan.train.split, plan.score.split, val_of(plan)) == ("all", "all", None)
    assert plan.train.paths[0] == f"{root}/JPEGImages/0.png"
    # Stages get ordinary bindings, and what is recorded of them is read back as it was.
    stages = {stage.name: stage for stage in plan.stages}
    assert "segmentation_scores" not in stages
    for stage in TRAINED:
        [command] = stages[stage].steps
        bindings = [flag.partition("=")[2] for flag in command if "folder_source.root" in flag]
        files = [flag.partition("=")[2] for flag in command if flag.startswith("--gin_file")]
        recipe_lib.load(files, bindings)
        assert gin.query_parameter("folder_source.root") == str(root)
        gin.clear_config()
        gin.parse_config(stages[stage].inputs["settings"])
        assert gin.query_parameter("folder_source.root") == str(root)
    assert changed(plan, with_folder(root)) == []


def test_bindings_win_over_the_splits_of_a_folder(pictures):
    lists = pictures / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name, ids in {"a": "0 1", "b": "1 2", "val": "3"}.items():
        (lists / f"{name}.txt").write_text("\n".join(ids.split()))
    with pytest.raises(UserError, match="which of the lists a, b, val"):
        with_folder(pictures)
    plan = with_folder(pictures, "Recipe.train_split='b'")
    assert (plan.train.ids, val_of(plan).ids) == (("1", "2"), ("3",))
    plan = with_folder(pictures, "recipe.Recipe.train_split='b'", "Recipe.validation_split=None")
    assert val_of(plan) is None


def test_what_changes_in_the_folder_is_noticed(pictures):
    before = of_folder(pictures)
    (pictures / "image_labels.csv").write_text("image,labels\n0,cat\n1,dog\n2,cat\n3,dog\n")
    other = of_folder(pictures)
    trained = ["cam", "affinity", "segmentation"]
    assert changed(before, other) == [*trained, "segmentation_scores", "label_scores"]
    # Masks are for scores only.
    (pictures / "SegmentationClass").mkdir()
    mask = Image.fromarray(np.zeros((40, 52), np.uint8))
    mask.save(pictures / "SegmentationClass/0.png")
    assert changed(other, of_folder(pictures)) == ["segmentation_scores", "label_scores"]


def test_fingerprints(pictures):
    def of(root=pictures):
        return fingerprint(folder_source("all", root=root))

    before = of()
    assert before.startswith("4 images, ")
    assert of() == before
    path = pictures / "JPEGImages/2.png"
    path.write_bytes(path.read_bytes() + b" ")
    assert of() != before
    source = folder_source("all", root=pictures)
    path.unlink()
    with pytest.raises(UserError, match=r"JPEGImages/2\.png: No such file"):
        fingerprint(source)
    drawn = [shapes_source("train", num_train=5, image_size=48, seed=seed) for seed in (0, 0, 1)]
    first, same, other = map(fingerprint, drawn)
    assert first == same != other
    assert fingerprint(drawn[0].without_masks()) != first


def test_an_overlay_changes_the_backbone_of_every_network_of_photos(pictures):
    settings = recipe_lib.with_folder(
        pictures, ["gin/pipelines/photos.gin", "gin/backbone/efficientnet_lite2.gin"], []
    )
    stages = inputs(make_of(settings))
    for name in TRAINED:
        gin.clear_config()
        gin.parse_config(stages[name]["settings"])
        assert gin.query_parameter("efficientnet_lite.size") == "lite2"
        assert gin.query_parameter("folder_source.max_side") == 384  # and so is the size's overlay
    assert "seam_network.backbone = @efficientnet_lite" in stages["cam"]["settings"]
    assert "affinity_network.backbone = @efficientnet_lite" in stages["affinity"]["settings"]
    assert "deeplab_network.backbone = @efficientnet_lite" in stages["segmentation"]["settings"]

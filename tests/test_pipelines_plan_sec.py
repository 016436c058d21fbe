"""The stages that follow from SEC's pipelines."""

import pathlib

import pytest
from test_pipelines_plan import TINY_SEC, changed, make, prepare

from wsss_tf.errors import UserError

SEC_TRAINED = ("foreground", "background", "segmentation")


@pytest.fixture(autouse=True)
def _prepared(monkeypatch):
    prepare(monkeypatch)


def _has_epochs(stage, count):
    return f"Recipe.epochs = {count}\n" in stage.inputs["settings"]


@pytest.mark.parametrize("name", ["sec", "sec_small", "sec_photos"])
def test_shipped_pipelines_of_sec(name, tmp_path):
    few = ["shapes_source.num_train=8", "shapes_source.num_val=4", "shapes_source.image_size=48"]
    files = [f"gin/pipelines/{name}.gin", "gin/data/shapes.gin"]
    if name == "sec":  # the paper's starts from weights that the user names
        with pytest.raises(UserError, match=r"Recipe\.initial_weights"):
            make(*few, files=files)
        (tmp_path / "weights.npz").write_bytes(b"1")
        few.append(f"Recipe.initial_weights='{tmp_path}/weights.npz'")
    plan = make(*few, "foreground/Recipe.epochs=3", files=files)
    stages = {stage.name: stage for stage in plan.stages}
    own = [] if name == "sec" else ["masks", "label_scores"]
    assert [stage for stage in stages if stage not in own] == [
        "foreground", "background", "cues", "segmentation", "segmentation_scores", "export",
        "report",
    ]  # fmt: skip
    assert set(own) < set(stages)
    assert tuple(plan.trained) == SEC_TRAINED
    assert [f"{stage}.epochs = 3" for stage in SEC_TRAINED if _has_epochs(stages[stage], 3)] == [
        "foreground.epochs = 3"
    ]
    if name == "sec_photos":
        for trained in plan.trained.values():
            assert "efficientnet_lite.size = 'lite0'" in trained.settings
    head = pathlib.Path(f"gin/pipelines/{name}.gin").read_text().split("from __gin__")[0]
    assert "python -m wsss_tf.pipeline" in head
    assert "Reported" in head


def test_shipped_pipeline_of_sec_on_maps():
    few = ["shapes_source.num_train=8", "shapes_source.num_val=4", "shapes_source.image_size=48"]
    files = ["gin/pipelines/sec_seam_photos.gin", "gin/data/shapes.gin"]
    plan = make(*few, files=files)
    stages = {stage.name: stage for stage in plan.stages}
    assert list(stages) == [
        "cam", "cams", "calibrate", "cues", "segmentation", "segmentation_scores", "masks",
        "export", "label_scores", "report",
    ]  # fmt: skip
    assert stages["cues"].after == ("calibrate",)
    # It follows what calibrate chooses, on the grid of the network that is trained.
    assert stages["cues"].steps == (
        (
            "cues", "--cams=RUN/cam/cams", "--output=RUN/cues", "--gin_file=gin/sec.gin",
            "--gin_file=gin/backbone/efficientnet_lite0.gin", "--gin_file=gin/size/photos_sec.gin",
            "--gin_file=gin/data/shapes.gin",
        ),
    )  # fmt: skip
    [segmentation] = stages["segmentation"].steps
    assert '--gin_bindings=sec_augmentation.cues="RUN/cues"' in segmentation
    set_by_hand = make(*few, "cams_stage.background_threshold=0.4", files=files)
    [cues] = [stage for stage in set_by_hand.stages if stage.name == "cues"]
    assert cues.after == ("cams",)
    assert "--maps_threshold=0.4" in cues.steps[0]


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["map_cues_stage.grid=16"], "recipe and map_cues_stage.grid are both given"),
        (["map_cues_stage.recipe=()"], "give a list of gin files"),
        (["map_cues_stage.maps='cues'"], "no stage of that name before it writes class"),
        (["map_cues_stage.foreground_share=2"], "give a number from 0 to 1"),
    ],
)
def test_mistakes_in_cues_of_maps(bindings, message):
    with pytest.raises(UserError, match=message):
        make(*bindings, files=["gin/pipelines/sec_seam_photos.gin", "gin/data/shapes.gin"])


def test_the_commands_of_sec():
    plan = make("cues_stage.grid=5", files=TINY_SEC)
    stages = {stage.name: stage for stage in plan.stages}
    [cues] = stages["cues"].steps
    assert cues == (
        "cues", "--foreground_run=RUN/foreground", "--background_run=RUN/background",
        "--split=train", "--output=RUN/cues", "--foreground_share=0.2", "--background_share=0.1",
        "--grid=5",
    )  # fmt: skip
    assert stages["cues"].after == ("foreground", "background")
    [segmentation] = stages["segmentation"].steps
    assert '--gin_bindings=sec_augmentation.cues="RUN/cues"' in segmentation
    [background] = stages["background"].steps
    weights = '"RUN/foreground/checkpoints/last.keras"'
    assert f"--gin_bindings=Recipe.initial_weights={weights}" in background
    assert stages["background"].inputs["weights"] == ""  # those of a stage it comes after
    [masks] = stages["masks"].steps
    assert masks == (
        "infer", "--run_dir=RUN/segmentation", "--split=train", "--output=RUN/masks"
    )  # fmt: skip
    assert stages["label_scores"].after == ("masks",)
    assert stages["report"].after == ("segmentation", "label_scores", "segmentation_scores")
    changes = changed(plan, make("cues_stage.grid=6", files=TINY_SEC))
    assert changes == ["cues"]

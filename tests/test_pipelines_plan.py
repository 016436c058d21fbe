"""The stages that follow from a pipeline's settings, and what each of them is made from."""

import importlib.util
import pathlib

import gin
import numpy as np
import pytest
from PIL import Image

from wsss_tf.data.fingerprint import fingerprint
from wsss_tf.data.folder import folder_source
from wsss_tf.data.shapes import shapes_source
from wsss_tf.errors import UserError
from wsss_tf.interop import imagenet
from wsss_tf.pipelines import plan as plan_lib
from wsss_tf.pipelines.settings import TRAINED, load_pipeline
from wsss_tf.runs import recipe as recipe_lib

TINY = ["tests/data/tiny_pipeline.gin"]
RUN = pathlib.Path("RUN")
FULL = "Pipeline.full_supervision=True"


ROOT = pathlib.Path(__file__).resolve().parent.parent


def prepare(monkeypatch):
    """Go to the folder that paths are relative to; plans are the same without pydensecrf."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plan_lib, "_check_library", lambda: None)


@pytest.fixture(autouse=True)
def _prepared(monkeypatch):
    prepare(monkeypatch)


def make(*bindings, files=TINY):
    pipeline = load_pipeline(files, bindings)
    return plan_lib.make_plan(pipeline, files, bindings, RUN)


def inputs(plan):
    return {stage.name: stage.inputs for stage in plan.stages}


def changed(plan, other):
    """Return the names of the stages whose own inputs differ."""
    before, now = inputs(plan), inputs(other)
    assert before.keys() == now.keys()
    return [name for name in before if before[name] != now[name]]


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        return make()


def test_stages_come_after_those_they_use(tiny):
    names = [stage.name for stage in tiny.stages]
    assert names == [
        "cam", "cams", "crf", "affinity", "walk", "segmentation", "segmentation_scores", "export",
        "label_scores", "report",
    ]  # fmt: skip
    for i, stage in enumerate(tiny.stages):
        assert set(stage.after) <= set(names[:i])
        proof = pathlib.PurePath(stage.proof)
        folders = [pathlib.PurePath(pattern) for pattern in stage.outputs]
        scores = stage.name == "segmentation_scores"
        assert scores or any(proof.is_relative_to(folder) for folder in folders)
    outputs = [pattern for stage in tiny.stages for pattern in stage.outputs]
    assert len(set(outputs)) == len(outputs)


def test_commands_are_those_of_a_user(tiny):
    commands = {
        stage.name: [step for step in stage.steps if isinstance(step, tuple)]
        for stage in tiny.stages
    }
    assert commands["cam"] == [
        ("train", "--gin_file=gin/seam.gin", "--gin_file=tests/data/tiny.gin", "--run_dir=RUN/cam")
    ]
    [affinity] = commands["affinity"]
    assert '--gin_bindings=with_crf_maps.cam_run="RUN/cam"' in affinity
    [segmentation] = commands["segmentation"]
    assert '--gin_bindings=Recipe.pseudo_labels="RUN/affinity/pseudo_labels"' in segmentation
    [walk] = commands["walk"]
    assert {"--random_walk", "--walk_steps=4", "--background_power=6", "--nowalk_crf"} < set(walk)
    assert commands["segmentation_scores"] == [
        ("infer", "--run_dir=RUN/segmentation", "--split=val"),
        ("evaluate", "--run_dir=RUN/segmentation", "--split=val"),
    ]


def test_background_powers_follow_the_threshold_of_the_maps():
    def flags(*bindings):
        stages = {stage.name: stage for stage in make(*bindings).stages}
        chosen = {}
        for name in ("cams", "crf", "walk"):
            flags = stages[name].inputs["flags"]
            chosen |= {key[2:]: value for key, _, value in (flag.partition("=") for flag in flags)}
        return [chosen[key] for key in ("background_threshold", "crf_powers", "background_power")]

    assert flags() == ["0.26", "4,24", "6"]
    followed = ["0.5", "0.892139,5.7263", "1.35101"]
    assert flags("cam/Recipe.background_threshold=0.5") == followed
    assert flags("Pipeline.background_threshold=0.5") == followed
    named = ("Pipeline.crf_powers=(2, 3)", "Pipeline.background_power=7")
    assert flags(*named, "Pipeline.background_threshold=0.5") == ["0.5", "2,3", "7"]
    thresholds = ("Pipeline.crf_thresholds=(0.25, 0.5)", "Pipeline.walk_threshold=0.5")
    assert flags(*thresholds) == ["0.26", "1,4.81884", "1"]


def test_full_supervision_trains_the_same_network_on_masks():
    plan = make(FULL)
    stages = {stage.name: stage for stage in plan.stages}
    full = stages["full_supervision"]
    assert full.after == ()
    assert full.inputs["settings"] == stages["segmentation"].inputs["settings"]
    assert full.inputs["data"] != stages["segmentation"].inputs["data"]  # its masks count
    assert not any("pseudo_labels" in flag for flag in full.steps[0])
    assert "full_supervision_scores" in stages["report"].after


def test_a_report_without_images_runs_no_network():
    *_, report = make("wsss_tf.pipelines.settings.Pipeline.report_images=0").stages
    assert not any(isinstance(step, tuple) for step in report.steps)


def test_without_a_validation_split_nothing_is_predicted():
    plan = make("Recipe.validation_split=None", FULL)
    assert not any(name.endswith("_scores") for name in inputs(plan) if name != "label_scores")
    assert plan.stages[-1].after == ("segmentation", "label_scores")


@pytest.mark.parametrize(
    ("binding", "stages"),
    [
        ("Recipe.seed=1", ["cam", "affinity", "segmentation"]),
        ("affinity/Recipe.epochs=9", ["affinity"]),
        ("segmentation/deeplab_augmentation.shift=3", ["segmentation"]),
        ("Pipeline.flip=False", ["cams"]),
        ("Pipeline.walk_steps=5", ["walk"]),
        ("Pipeline.background_threshold=0.3", ["cams", "crf", "walk"]),
        ("Pipeline.crf_thresholds=(0.2, 0.4)", ["crf"]),
        ("Pipeline.crf_unary_weight=2", ["crf"]),
        ("Pipeline.walk_threshold=0.4", ["walk"]),
        ("settings.Pipeline.export_scales=(0.5, 1)", ["export"]),
        ("Pipeline.report_images=2", ["report"]),
        ("Pipeline.crf_processes=1", []),
        (
            "shapes_source.num_val=5",
            ["cam", "affinity", "segmentation", "segmentation_scores"],
        ),
        (
            "shapes_source.num_train=11",
            ["cam", "affinity", "segmentation", "label_scores"],
        ),
    ],
)
def test_a_binding_reaches_its_stages_only(tiny, binding, stages):
    assert changed(tiny, make(binding)) == stages


def test_settings_count_and_not_how_they_are_written(tiny, tmp_path):
    text = pathlib.Path("gin/seam.gin").read_text()
    (tmp_path / "seam.gin").write_text("# mine\n" + text)
    files = f"Pipeline.cam_recipe=('{tmp_path}/seam.gin', 'tests/data/tiny.gin')"
    assert changed(tiny, make(files)) == []
    # An included file counts as the file itself.
    (tmp_path / "seam.gin").write_text(text + "\nseam_training.seam_step.rescale = 0.25\n")
    (tmp_path / "outer.gin").write_text(f"include '{tmp_path}/seam.gin'\n")
    (tmp_path / "tiny.gin").write_text(
        pathlib.Path("tests/data/tiny.gin").read_text().replace("seam_step.rescale = 0.5", "")
        .replace("seam_training.\n", "\n")
    )  # fmt: skip
    files = f"Pipeline.cam_recipe=('{tmp_path}/outer.gin', '{tmp_path}/tiny.gin')"
    assert changed(tiny, make(files)) == ["cam"]


def test_weights_to_start_from_count(tmp_path):
    weights = tmp_path / "weights.npz"
    binding = f"Recipe.initial_weights='{weights}'"
    with pytest.raises(UserError, match=r"weights\.npz: No such file"):
        make(binding)
    weights.write_bytes(b"1")
    before = make(binding)
    weights.write_bytes(b"12")
    assert changed(before, make(binding)) == ["cam", "affinity", "segmentation"]


def test_weights_from_imagenet_count(monkeypatch):
    # Without a look at them: they may have to be fetched.
    monkeypatch.setattr(imagenet, "imagenet_weights", None)
    binding = "Recipe.initial_weights='imagenet'"
    before = make(binding)
    assert changed(before, make(binding)) == []
    monkeypatch.setattr(imagenet, "_LITE", {"efficientnet_lite0": "another sum"})
    assert changed(before, make(binding)) == ["cam", "affinity", "segmentation"]


@pytest.mark.parametrize("name", ["seam", "seam_small", "photos"])
def test_shipped_pipelines(name, tmp_path):
    few = ["shapes_source.num_train=8", "shapes_source.num_val=4", "shapes_source.image_size=48"]
    files = [f"gin/pipelines/{name}.gin", "gin/data/shapes.gin"]
    if name == "seam":  # the paper's starts from weights that the user names
        with pytest.raises(UserError, match=r"Recipe\.initial_weights"):
            make(*few, files=files)
        (tmp_path / "weights.npz").write_bytes(b"1")
        few.append(f"Recipe.initial_weights='{tmp_path}/weights.npz'")
    plan = make(*few, files=files)
    settings = inputs(plan)["segmentation"]["settings"]
    assert "shapes_source" in settings
    assert all(inputs(plan)[stage]["weights"] for stage in TRAINED)
    assert len(inputs(plan)["cams"]["flags"][0].split(",")) == 4
    head = pathlib.Path(f"gin/pipelines/{name}.gin").read_text().split("from __gin__")[0]
    assert "python -m wsss_tf.pipeline" in head
    assert "Reported" in head


def test_pipelines_say_powers_or_thresholds():
    seam = load_pipeline(["gin/pipelines/seam.gin"], [])
    assert (seam.crf_powers, seam.background_power) == ((4, 24), 6)
    assert (seam.crf_thresholds, seam.walk_threshold) == (None, None)
    photos = load_pipeline(["gin/pipelines/photos.gin"], [])
    assert (photos.crf_powers, photos.background_power) == (None, None)
    low, high = photos.crf_thresholds
    recipe = recipe_lib.load(photos.cam_recipe)
    assert low < recipe.background_threshold < high
    # The walk carries classes into the background beside them.
    assert recipe.background_threshold <= photos.walk_threshold < 1


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


# === Mistakes ===


@pytest.mark.parametrize(
    ("files", "bindings", "words"),
    [
        ([], [], "no --gin_file"),
        (["gin/seam.gin"], [], r"gin/seam\.gin: is no pipeline"),
        (["gin/pipelines/nope.gin"], [], "gin/pipelines/nope.gin"),
        (TINY, ["Pipeline.flop=True"], "flop"),
        (TINY, ["Pipeline.cam_recipe='gin/seam.gin'"], "give a list of gin files"),
        (TINY, ["Pipeline.scales=(0, 1)"], r"Pipeline.scales = \(0, 1\); give a list of positive"),
        (TINY, ["Pipeline.export_scales=1"], "Pipeline.export_scales = 1; give a list"),
        (TINY, ["Pipeline.crf_powers=(24, 4)"], r"crf_powers = \(24, 4\); give two positive"),
        (
            TINY,
            ["Pipeline.crf_thresholds=(0.2, 1)"],
            "crf_thresholds = .* give two numbers between",
        ),
        (TINY, ["Pipeline.crf_scale=0"], "crf_scale = 0; give a positive number"),
        (
            TINY,
            ["Pipeline.crf_powers=(4, 24)", "Pipeline.crf_thresholds=(0.1, 0.2)"],
            "crf_powers and Pipeline.crf_thresholds are both given",
        ),
        (TINY, ["cam/Recipe.background_threshold=1"], "background_threshold = 1; give one between"),
        (TINY, ["Pipeline.walk_steps=2.5"], "Pipeline.walk_steps = 2.5; give a whole number"),
        (TINY, ["Pipeline.crf_processes=0"], "Pipeline.crf_processes = 0; give None or"),
        (TINY, ["Recipe.batchsize=1"], "batchsize"),
        (TINY, ["segmentation/Recipe.batchsize=1"], "batchsize"),
        (TINY, ["Pipeline.score_split='val'"], "'shapes_val_00000' is not in the split 'train'"),
        (TINY, ["Pipeline.score_split='nope'"], "no split 'nope'"),
        (TINY, ["affinity/Recipe.train_split='val'"], "train_split differs"),
        (TINY, ["Pipeline.cam_recipe=%T"], "cam_recipe: is no recipe of class activation maps"),
        (
            TINY,
            ["Pipeline.segmentation_recipe=%S"],
            "segmentation_recipe: is no recipe that learns",
        ),
        (TINY, ["Pipeline.affinity_recipe=%S"], "affinity_recipe: is no recipe such as"),
    ],
)
def test_mistakes_are_named_before_anything_is_run(files, bindings, words):
    seam = "('gin/seam.gin', 'tests/data/tiny.gin')"
    deeplab = "('gin/deeplab.gin', 'tests/data/tiny_masks.gin')"
    bindings = [text.replace("%S", seam).replace("%T", deeplab) for text in bindings]
    with pytest.raises(UserError, match=words):
        make(*bindings, files=files)


def test_missing_library_is_named_before_anything_is_run(monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install pydensecrf2"):
        make()


# === The user's own pictures ===


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


@pytest.mark.parametrize("name", ['it\'s "mine"', "Größe 😀, 100 %", "long name " * 20])
def test_a_folder_of_any_name_is_one_flag(pictures, name, capsys):
    root = pictures.rename(pictures.parent / name)
    plan = with_folder(root)
    assert "Recipe.validation_split = None" in capsys.readouterr().out
    assert (plan.train.split, plan.score.split, plan.val) == ("all", "all", None)
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
    assert (plan.train.ids, plan.val.ids) == (("1", "2"), ("3",))
    plan = with_folder(pictures, "recipe.Recipe.train_split='b'", "Recipe.validation_split=None")
    assert plan.val is None


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

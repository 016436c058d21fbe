"""The stages that follow from a pipeline's settings, and what each of them is made from."""

import pathlib
import sys

import gin
import pytest

from wsss_tf.errors import UserError
from wsss_tf.inference.cam_crf import threshold_of_power
from wsss_tf.interop import imagenet
from wsss_tf.pipelines import plan as plan_lib
from wsss_tf.pipelines.context import Description, Planned
from wsss_tf.pipelines.records import Stage
from wsss_tf.pipelines.settings import _MOVED, Pipeline, load_pipeline
from wsss_tf.pipelines.stages import cams, crf, label_scores, predict, train

TINY = ["tests/data/tiny_pipeline.gin"]
TINY_SEC = ["tests/data/tiny_sec_pipeline.gin"]
TRAINED = ("cam", "affinity", "segmentation")
RUN = pathlib.Path("RUN")
FULL = "Pipeline.full_supervision=True"


ROOT = pathlib.Path(__file__).resolve().parent.parent


def prepare(monkeypatch):
    """Go to the folder that paths are relative to."""
    monkeypatch.chdir(ROOT)


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
    assert walk == (
        *("walk", "--run_dir=RUN/cam", "--split=train", "--affinity_run=RUN/affinity"),
        *("--background_power=6", "--affinity_power=8", "--walk_steps=4", "--nowalk_crf"),
    )
    [crf] = commands["crf"]
    assert crf[:4] == ("refine", "--run_dir=RUN/cam", "--split=train", "--crf_powers=4,24")
    assert commands["segmentation_scores"] == [
        ("infer", "--run_dir=RUN/segmentation", "--split=val"),
        ("evaluate", "--run_dir=RUN/segmentation", "--split=val"),
    ]


def test_records_of_earlier_versions_stay_valid():
    """Of SEAM's chain: what is compared with the records of run folders has its names of old."""
    plan = make(FULL)
    trained = "settings weights data"
    wanted = {
        "cam": (trained, ""),
        "cams": ("--scales=1 --flip --background_threshold=0.26", "cam"),
        "crf": ("--crf_powers=4,24 --crf_iterations=10 --crf_unary_weight=1 --crf_scale=1", "cams"),
        "affinity": (trained, "crf"),
        "walk": (
            "--background_power=6 --affinity_power=8 --walk_steps=4 --nowalk_crf",
            "cams affinity",
        ),
        "segmentation": (trained, "walk"),
        "segmentation_scores": ("data", "segmentation"),
        "full_supervision": (trained, ""),
        "full_supervision_scores": ("data", "full_supervision"),
        "export": ("--scales=1 --noflip", "segmentation"),
        "label_scores": ("data", "cams crf walk"),
        "report": (
            "images full_supervision",
            "segmentation label_scores segmentation_scores full_supervision_scores",
        ),
    }
    found = {
        stage.name: (" ".join(stage.inputs.get("flags", stage.inputs)), " ".join(stage.after))
        for stage in plan.stages
    }
    assert found == wanted
    assert list(found) == list(wanted)
    assert inputs(plan)["report"] == {"images": 3, "full_supervision": True}
    proofs = {stage.name: stage.proof for stage in plan.stages}
    assert proofs["cam"] == "cam/checkpoints/last.keras"
    assert proofs["crf"] == "cam/crf_high_labels"
    assert proofs["export"] == "export/1/saved_model.pb"


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
    assert flags("cams_stage.background_threshold=0.5") == followed
    named = ("crf_stage.powers=(2, 3)", "walk_stage.background_power=7")
    assert flags(*named, "cams_stage.background_threshold=0.5") == ["0.5", "2,3", "7"]
    assert flags("crf_stage.thresholds=(0.25, 0.5)") == ["0.26", "1,4.81884", "6"]


def test_a_walk_of_the_classes_alone():
    stages = {stage.name: stage for stage in make("walk_stage.threshold=0.7").stages}
    assert "--walk_threshold=0.7" in stages["walk"].inputs["flags"]
    assert not any("background_power" in flag for flag in stages["walk"].inputs["flags"])
    crf = ("walk_stage.crf=True", "walk_stage.crf_scale=2", "walk_stage.crf_iterations=4")
    stages = {stage.name: stage for stage in make(*crf).stages}
    assert stages["walk"].inputs["flags"][-4:] == (
        *("--walk_crf", "--crf_scale=2"),
        *("--walk_crf_iterations=4", "--walk_crf_unary_weight=1"),
    )


CALIBRATED = ["tests/data/tiny_calibrated.gin"]


def test_a_threshold_that_is_chosen_once_the_maps_are_there(tmp_path):
    def stages(*bindings):
        return {stage.name: stage for stage in make(*bindings, files=CALIBRATED).stages}

    def background(stage):
        return stage.inputs["flags"][0]

    chosen = stages()
    assert chosen["calibrate"].steps == (("calibrate", "--run_dir=RUN/cam", "--split=train"),)
    assert chosen["calibrate"].after == ("cams",)
    assert chosen["crf"].after == ("calibrate",)
    assert chosen["walk"].after == ("calibrate", "affinity")
    # The commands follow what was chosen.
    assert not any("power" in flag for flag in chosen["crf"].inputs["flags"])
    assert not any("background" in flag for flag in chosen["walk"].inputs["flags"])
    odds = stages("crf_stage.odds=(0.5, 2)", "walk_stage.odds=1.5")
    assert (background(odds["crf"]), background(odds["walk"])) == (
        "--crf_odds=0.5,2",
        "--walk_odds=1.5",
    )
    named = stages("crf_stage.thresholds=(0.25, 0.5)", "walk_stage.threshold=0.7")
    assert (background(named["crf"]), background(named["walk"])) == (
        "--crf_powers=1,4.81884",
        "--walk_threshold=0.7",
    )
    # One that is set is not chosen.
    fixed = ("cams_stage.background_threshold=0.5", "walk_stage.odds=1.5")
    fixed = stages(*fixed, "crf_stage.odds=(0.5, 2)")
    assert "calibrate" not in fixed
    assert fixed["crf"].after == ("cams",)
    low, high = (threshold_of_power(float(x)) for x in background(fixed["crf"])[13:].split(","))
    assert (high, low) == (pytest.approx(1 / 3, abs=1e-4), pytest.approx(2 / 3, abs=1e-4))
    assert background(fixed["walk"]) == "--walk_threshold=0.6"


def test_a_threshold_that_masks_choose(tmp_path):
    (tmp_path / "0.png").write_bytes(b"mask")
    binding = f"calibrate_stage.masks='{tmp_path}'"
    before = make(binding, files=CALIBRATED)
    [step] = next(stage for stage in before.stages if stage.name == "calibrate").steps
    assert step[-1] == f"--masks={tmp_path}"
    (tmp_path / "1.png").write_bytes(b"another")
    assert changed(before, make(binding, files=CALIBRATED)) == ["calibrate"]
    with pytest.raises(UserError, match=r"masks = 'nope': no such folder"):
        make("calibrate_stage.masks='nope'", files=CALIBRATED)


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
    *_, report = make("wsss_tf.pipelines.stages.report.report_stage.images=0").stages
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
        ("cams_stage.flip=False", ["cams"]),
        ("walk_stage.steps=5", ["walk"]),
        ("cams_stage.background_threshold=0.3", ["cams", "crf", "walk"]),
        ("crf_stage.thresholds=(0.2, 0.4)", ["crf"]),
        ("crf_stage.unary_weight=2", ["crf"]),
        ("walk_stage.threshold=0.4", ["walk"]),
        ("export.export_stage.scales=(0.5, 1)", ["export"]),
        ("report_stage.images=2", ["report"]),
        ("crf_stage.processes=1", []),
        ("Pipeline.at_once=2", []),
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
    files = f"cam/train_stage.recipe=('{tmp_path}/seam.gin', 'tests/data/tiny.gin')"
    assert changed(tiny, make(files)) == []
    # An included file counts as the file itself.
    (tmp_path / "seam.gin").write_text(text + "\nseam_training.seam_step.rescale = 0.25\n")
    (tmp_path / "outer.gin").write_text(f"include '{tmp_path}/seam.gin'\n")
    (tmp_path / "tiny.gin").write_text(
        pathlib.Path("tests/data/tiny.gin").read_text().replace("seam_step.rescale = 0.5", "")
        .replace("seam_training.\n", "\n")
    )  # fmt: skip
    files = f"cam/train_stage.recipe=('{tmp_path}/outer.gin', '{tmp_path}/tiny.gin')"
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
    query = gin.query_parameter
    load_pipeline(["gin/pipelines/seam.gin"], [])
    assert query("crf_stage.powers") == (4, 24)
    assert query("walk_stage.background_power") == 6
    load_pipeline(["gin/pipelines/photos.gin"], [])
    assert query("crf_stage.powers") is None
    assert query("walk_stage.background_power") is None
    low, high = query("crf_stage.odds")
    assert low < 1 < high
    # The walk carries classes into the background beside them.
    assert query("walk_stage.odds") > 1


# === Lists of one's own ===


def test_a_shorter_chain_with_a_stage_of_ones_own():
    """DeepLab on the labels of the CRF, with no AffinityNet, and something made of its masks."""

    def resolve(context):
        step = ("mine", f"--run_dir={context.run_dir}")
        stage = Stage("mine", (step,), {"data": context.train_data}, ("mine",), "mine", ("masks",))
        return Planned(stage, scored={"mine": context.run_dir / "mine"})

    deeplab = ("gin/deeplab.gin", "tests/data/tiny_masks.gin")
    labels = {"Recipe.pseudo_labels": "cam/crf_high_labels"}
    stages = (
        train.train_stage("cam", ("gin/seam.gin", "tests/data/tiny.gin")),
        cams.cams_stage(),
        crf.crf_stage(),
        train.train_stage("segmentation", deeplab, ("crf",), labels),
        predict.masks_stage(),
        Description("mine", resolve),
        label_scores.label_scores_stage(),
    )
    bindings = ["segmentation/Recipe.seed=7"]
    plan = plan_lib.make_plan(Pipeline(stages), TINY, bindings, RUN)
    planned = {stage.name: stage for stage in plan.stages}
    assert (
        '--gin_bindings=Recipe.pseudo_labels="RUN/cam/crf_high_labels"'
        in (planned["segmentation"].steps[0])
    )
    assert "Recipe.seed = 7\n" in planned["segmentation"].inputs["settings"]
    assert "Recipe.seed" not in planned["cam"].inputs["settings"]
    assert planned["label_scores"].after == ("cams", "crf", "masks", "mine")


def test_a_network_that_starts_from_an_earlier_one_needs_no_other_weights():
    stages = (
        train.train_stage("first", ("gin/seam.gin", "tests/data/tiny.gin")),
        train.train_stage("second", ("gin/seam.gin", "gin/data/shapes.gin"), ("first",)),
    )
    with pytest.raises(UserError, match="starts from pretrained weights"):
        plan_lib.make_plan(Pipeline(stages), TINY, (), RUN)
    weights = {"Recipe.initial_weights": "first/checkpoints/last.keras"}
    files = ("gin/seam.gin", "gin/data/shapes.gin")
    second = train.train_stage("second", files, ("first",), weights)
    plan = plan_lib.make_plan(Pipeline((stages[0], second)), TINY, (), RUN)
    assert plan.stages[1].after == ("first",)


# === Mistakes ===


@pytest.mark.parametrize(
    ("files", "bindings", "words"),
    [
        ([], [], "no --gin_file"),
        (["gin/seam.gin"], [], r"gin/seam\.gin: is no pipeline"),
        (["gin/pipelines/nope.gin"], [], "gin/pipelines/nope.gin"),
        (TINY, ["Pipeline.flop=True"], "flop"),
        (TINY, ["crf_stage.power=(4, 24)"], "parameter named 'power'"),
        (TINY, ["cam/train_stage.recipe='gin/seam.gin'"], "cam/train_stage.recipe = .* gin files"),
        (TINY, ["cams_stage.scales=(0, 1)"], r"cams_stage.scales = \(0, 1\); give a list of pos"),
        (TINY, ["export_stage.scales=1"], "export_stage.scales = 1; give a list"),
        (TINY, ["crf_stage.powers=(24, 4)"], r"crf_stage.powers = \(24, 4\); give two positive"),
        (
            TINY,
            ["crf_stage.thresholds=(0.2, 1)"],
            "crf_stage.thresholds = .* give two numbers between",
        ),
        (TINY, ["crf_stage.scale=0"], "crf_stage.scale = 0; give a positive number"),
        (
            TINY,
            ["crf_stage.powers=(4, 24)", "crf_stage.thresholds=(0.1, 0.2)"],
            "crf_stage.powers and crf_stage.thresholds are both given",
        ),
        (
            TINY,
            ["walk_stage.background_power=4", "walk_stage.threshold=0.2"],
            "walk_stage.background_power and walk_stage.threshold are both given",
        ),
        (TINY, ["cam/Recipe.background_threshold=1"], "background_threshold = 1; give one between"),
        (TINY, ["walk_stage.steps=2.5"], "walk_stage.steps = 2.5; give a whole number"),
        (TINY, ["Pipeline.at_once=0"], "Pipeline.at_once = 0; give a whole number, 1 or"),
        (TINY, ["crf_stage.processes=0"], "crf_stage.processes = 0; give a whole number, 1 or"),
        (TINY, ["Recipe.batchsize=1"], "batchsize"),
        (TINY, ["segmentation/Recipe.batchsize=1"], "batchsize"),
        (TINY, ["Pipeline.score_split='val'"], "'shapes_val_00000' is not in the split 'train'"),
        (TINY, ["Pipeline.score_split='nope'"], "no split 'nope'"),
        (TINY, ["affinity/Recipe.train_split='val'"], "train_split differs"),
        (
            TINY,
            ["cam/train_stage.recipe=%T"],
            "cam/train_stage.recipe: is no recipe of class activation maps",
        ),
        (
            TINY,
            ["segmentation/train_stage.recipe=%S"],
            "segmentation/train_stage.recipe: is no recipe that learns",
        ),
        (
            TINY,
            ["affinity/train_stage.recipe=%S"],
            "affinity/train_stage.recipe: is no recipe such",
        ),
        (TINY, ["cams_stage.run='nope'"], "cams_stage.run = 'nope': no stage .* are cam"),
        (TINY, ["crf_stage.maps='cam'"], "crf_stage.maps = 'cam': no stage .* class activation"),
        (
            TINY,
            ["affinity/train_stage.after=('walk',)"],
            "affinity: comes after 'walk', which is no",
        ),
        (TINY, ["segmentation/train_stage.name='cam'"], "two stages have the name 'cam'"),
        (TINY, ["Pipeline.stages=()"], r"Pipeline.stages = \(\); give a list"),
        (TINY, ["Pipeline.stages=(@crf_stage,)"], "is no stage; each is called"),
        (TINY, ["Pipeline.stages=(@crf_stage(),)"], "the first, 'crf', trains no recipe"),
        (TINY_SEC, [FULL], "Pipeline.full_supervision: this pipeline has no such stage"),
        (TINY_SEC, ["cues_stage.foreground_share=2"], "foreground_share = 2; give a number from"),
    ],
)
def test_mistakes_are_named_before_anything_is_run(files, bindings, words):
    seam = "('gin/seam.gin', 'tests/data/tiny.gin')"
    deeplab = "('gin/deeplab.gin', 'tests/data/tiny_masks.gin')"
    bindings = [text.replace("%S", seam).replace("%T", deeplab) for text in bindings]
    with pytest.raises(UserError, match=words):
        make(*bindings, files=files)


@pytest.mark.parametrize("name", _MOVED)
def test_settings_of_before_are_named_as_they_are_now(name):
    with pytest.raises(UserError) as error:
        make(f"settings.Pipeline.{name}=1")
    text = str(error.value)
    assert f"Pipeline.{name} is a setting of its stage now: {_MOVED[name]} (" in text
    assert "\n" not in text
    # They are settings that there are.
    load_pipeline(["gin/pipelines/photos.gin"], [])
    with gin.unlock_config():
        for new in _MOVED[name].split(" and "):
            gin.bind_parameter(new, None)


def test_missing_library_is_named_before_anything_is_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    for wanted in (
        ["crf_stage.library='pydensecrf'"],
        ["walk_stage.crf=True", "walk_stage.crf_library='pydensecrf'"],
    ):
        with pytest.raises(UserError, match=r"pip install 'wsss_tf\[pydensecrf\]'"):
            make(*wanted)
    with pytest.raises(UserError, match=r"library = 'c'; give 'numba' or 'tensorflow' or"):
        make("crf_stage.library='c'")

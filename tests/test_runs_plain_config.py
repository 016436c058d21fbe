"""A run folder's config.json: the same settings as config.gin, and nothing that can be run."""

import json
import shutil

import as_user
import keras
import pytest

from wsss_tf.errors import UserError
from wsss_tf.files.run_folder import RunFolder
from wsss_tf.runs import plain_config
from wsss_tf.runs import recipe as recipe_lib

SHAPES = (
    "shapes_source.num_train=12",
    "shapes_source.num_val=6",
    "shapes_source.image_size=48",
    "Recipe.initial_weights='caf\\u00e9\\n\"x\"'",
    "Recipe.train_split='train'",
)


@pytest.fixture
def run(tmp_path):
    """Return a run folder with the settings of SEAM on drawn scenes."""
    recipe_lib.load(["gin/seam.gin", "gin/data/shapes.gin"], SHAPES)
    run = RunFolder(tmp_path / "run")
    recipe_lib.save_parsed_config(run, "for a test")
    return run


def changed(run, change):
    value = json.loads(run.plain_config.read_text())
    change(value)
    run.plain_config.write_text(json.dumps(value))


def _settings(text):
    lines = (line for line in text.splitlines() if not line.startswith(("#", "from ")))
    return sorted(line for line in lines if line and "NEW_LAYERS" not in line and "(" not in line)


def test_it_gives_the_recipe_that_config_gin_gives(run):
    plain = recipe_lib.load_run(run)
    settings = recipe_lib.parsed_config()
    run.plain_config.unlink()
    recipe = recipe_lib.load_run(run)
    assert recipe == plain
    assert recipe.initial_weights == 'caf\u00e9\n"x"'
    # A macro is its value there.
    assert _settings(recipe_lib.parsed_config()) == _settings(settings)
    assert len(plain.source(split="train")) == 12


def test_it_says_what_wrote_it(run):
    value = json.loads(run.plain_config.read_text())
    assert value["versions"]["keras"] == keras.__version__
    assert value["settings"]["recipe.Recipe.train_split"] == "train"


@pytest.mark.parametrize("method", ["affinity", "cpnet_ade20k", "deeplab", "sanet_voc", "sec"])
def test_every_kind_of_recipe_can_be_said_in_plain_values(method, tmp_path):
    recipe_lib.load([f"gin/{method}.gin"], ["Recipe.initial_weights='x'"])
    recipe_lib.save_parsed_config(tmp_path, "for a test")
    assert RunFolder(tmp_path).plain_config.is_file()
    recipe_lib.load_run(tmp_path)


def test_a_changed_config_gin_is_refused_and_not_run(run, tmp_path):
    witness = tmp_path / "ran"
    text = run.config.read_text()
    program = (
        f"import os\nrecipe.Recipe.seed = @os.system()\nos.system.command = 'touch {witness}'\n"
    )
    run.config.write_text(text + program)
    with pytest.raises(UserError, match=r"config\.gin: is not the one that config\.json"):
        recipe_lib.load_run(run)
    assert not witness.exists()
    # Without config.json it is the program that it is said to be.
    run.plain_config.unlink()
    recipe_lib.load_run(run)
    assert witness.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["modules"].update(os="os"), "names the module 'os'"),
        (lambda v: v["modules"].update(a="wsss_tf.files.run_folder"), "names the module"),
        (lambda v: v["modules"].update({"recipe\nimport os": "wsss_tf.runs.recipe"}), "module"),
        (
            lambda v: v["settings"].update(
                {"recipe.Recipe.seed": {"factory": "recipe.write_text", "call": True}}
            ),
            r"names recipe\.write_text",
        ),
        (lambda v: v["settings"].update({"recipe.save_config.run_dir": "x"}), "names recipe.save"),
        (lambda v: v["settings"].update({"recipe.Recipe.seed = 1\nimport os\na.b.c": 1}), "is no"),
        (lambda v: v["settings"].update({"recipe.Recipe.seed": {"a": 1}}), "is no plain value"),
        (
            lambda v: v["settings"].update(
                {"recipe.Recipe.seed": {"factory": "recipe.Recipe()\nimport os", "call": False}}
            ),
            "is no plain value",
        ),
        (lambda v: v.update(settings=[]), "no modules and settings"),
        (lambda v: v.update(format=9), "is of format 9"),
    ],
)
def test_what_is_more_than_a_setting_is_refused(run, change, words):
    changed(run, change)
    with pytest.raises(UserError, match=rf"config\.json: .*{words}"):
        recipe_lib.load_run(run)


def test_a_damaged_file_is_a_line(run):
    run.plain_config.write_text("{")
    with pytest.raises(UserError, match=r"config\.json: is damaged"):
        recipe_lib.load_run(run)


def test_modules_of_the_users_own_leave_config_gin_alone(seam_run):
    assert RunFolder(seam_run).config.is_file()
    assert not RunFolder(seam_run).plain_config.exists()


def test_bindings_of_a_record_are_settings_too(run):
    recipe_lib.check_recorded_bindings(run, ["folder_source.root='x'", "Recipe.seed=3"])
    for bindings in (["import os"], ["Recipe.seed=@os.system()"], ["include 'x.gin'"]):
        with pytest.raises(UserError, match="a record is refused"):
            recipe_lib.check_recorded_bindings(run, bindings)


def test_no_module_outside_of_the_package_can_be_named():
    factories = plain_config._factories(recipe_lib._FOLDERS)
    assert ("wsss_tf.models.seam", "seam_network") in factories
    assert all(module.startswith("wsss_tf.") for module, _ in factories)
    assert not any(
        module.startswith(("wsss_tf.files", "wsss_tf.pipelines")) for module, _ in factories
    )


@pytest.fixture
def trained(run, seam_run):
    """Return the folder with a network, which any settings with the same classes will do for."""
    for name in ("checkpoints", "class_names.txt"):
        copy = shutil.copytree if name == "checkpoints" else shutil.copy
        copy(seam_run / name, run.path / name)
    run.config.unlink()  # it is not needed
    return run


def test_infer_reads_it(trained):
    as_user.ok("infer", f"--run_dir={trained.path}", "--split=val")


@pytest.mark.large
def test_evaluate_and_export_read_it(trained, tmp_path):
    as_user.ok("infer", f"--run_dir={trained.path}", "--split=val")
    as_user.ok("evaluate", f"--run_dir={trained.path}", "--split=val")
    as_user.ok("export", f"--run_dir={trained.path}", f"--output={tmp_path / 'model'}")

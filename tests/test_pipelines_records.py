"""Stages: what is skipped, made anew and gone on with, what is never removed, and being killed."""

import json

import pytest

from wsss_tf.errors import UserError
from wsss_tf.pipelines import records as stage_lib
from wsss_tf.pipelines.records import Stage, read_record, run_stages


@pytest.fixture
def log():
    """Functions write to this list what they are."""
    return []


def chain(run_dir, log, second="x", is_resumable=True, action=None):
    """Three stages: first <- second <- third; second's only input is given."""

    def write(name, text):
        def step():
            log.append(name)
            folder = run_dir / name
            folder.mkdir(exist_ok=True)
            with (folder / "file").open("a") as file:
                file.write(text)
            if action is not None:
                action(name)

        return step

    def one(name, inputs, after, text):
        outputs, proof = (f"{name}/file", f"{name}/more"), f"{name}/file"
        return Stage(name, (write(name, text),), inputs, outputs, proof, after, is_resumable)

    return [
        one("first", {"a": 1}, (), "1"),
        one("second", {"settings": f"A = 1\nB = {second!r}"}, ("first",), second),
        one("third", {"scales": (1.0, 2.0)}, ("second",), "3"),
    ]


def texts(run_dir):
    return [(run_dir / name / "file").read_text() for name in ("first", "second", "third")]


def test_what_is_up_to_date_is_skipped(tmp_path, log, capsys):
    run = tmp_path / "run"
    assert run_stages(run, chain(run, log)) == ["first", "second", "third"] == log
    assert "third: running.\n" in capsys.readouterr().out
    assert run_stages(run, chain(run, log)) == []
    lines = ["=== first: up to date.", "=== second: up to date.", "=== third: up to date."]
    assert capsys.readouterr().out.splitlines() == lines
    assert texts(run) == ["1", "x", "3"]


def test_a_change_redoes_a_stage_and_what_follows_from_it(tmp_path, log, capsys):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    (run / "second/notes.txt").write_text("my own")
    log.clear()
    capsys.readouterr()
    assert run_stages(run, chain(run, log, second="y"), dry_run=True) == ["second", "third"]
    assert not log
    assert "to do, made again: settings: now B = 'y'." in capsys.readouterr().out
    assert run_stages(run, chain(run, log, second="y")) == ["second", "third"] == log
    assert "third: running, made again: stage second is made anew." in capsys.readouterr().out
    assert texts(run) == ["1", "y", "3"]  # the old files were not added to
    assert (run / "second/notes.txt").read_text() == "my own"
    assert run_stages(run, chain(run, log, second="y")) == []


def test_a_stage_made_anew_with_the_same_settings_counts_as_a_change(tmp_path, log):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    (run / "first/file").unlink()
    assert run_stages(run, chain(run, log)) == ["first", "second", "third"]


def test_part_of_the_stages_then_the_rest(tmp_path, log):
    run = tmp_path / "run"
    assert run_stages(run, chain(run, log)[:2]) == ["first", "second"]
    assert run_stages(run, chain(run, log)) == ["third"]
    run_stages(run, chain(run, log, second="y")[:2])
    assert run_stages(run, chain(run, log, second="y")) == ["third"]


@pytest.mark.parametrize("is_resumable", [True, False], ids=["goes on", "starts afresh"])
def test_an_interrupted_stage(tmp_path, log, is_resumable):
    run = tmp_path / "run"

    def stop(name):
        if name == "second":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(run, chain(run, log, is_resumable=is_resumable, action=stop))
    assert read_record(run, "second")["state"] == "started"
    assert run_stages(run, chain(run, log, is_resumable=is_resumable)) == ["second", "third"]
    assert texts(run) == ["1", "xx" if is_resumable else "x", "3"]


def test_an_interrupted_stage_with_other_settings_starts_afresh(tmp_path, log):
    run = tmp_path / "run"

    def stop(name):
        if name == "second":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(run, chain(run, log, action=stop))
    run_stages(run, chain(run, log, second="y"))
    assert texts(run) == ["1", "y", "3"]


def test_a_half_removed_stage_is_not_taken_for_finished(tmp_path, log, monkeypatch):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage_lib, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stages(run, chain(run, log, second="y"))
    # Back to the settings that the record of the finished stage had.
    assert run_stages(run, chain(run, log)) == ["second", "third"]
    assert texts(run) == ["1", "x", "3"]


def test_what_others_have_made_is_refused_and_kept(tmp_path, log):
    run = tmp_path / "run"
    (run / "second").mkdir(parents=True)
    (run / "second/file").write_text("by hand")
    with pytest.raises(UserError, match=r"second/file: exists, but this pipeline has not made it"):
        run_stages(run, chain(run, log))
    assert (run / "second/file").read_text() == "by hand"


def test_nothing_outside_of_the_run_folder_is_removed(tmp_path, log):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run_stages(run, chain(run, log))
    # A folder of outputs that has been moved to another disk: the link goes, what it names stays.
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (run / "second/more").symlink_to(elsewhere)
    run_stages(run, chain(run, log, second="y"))
    assert not (run / "second/more").exists()
    assert (elsewhere / "kept").read_text() == "kept"
    # The whole folder of the stage likewise: refused.
    (run / "second/file").rename(elsewhere / "file")
    (run / "second").rmdir()
    (run / "second").symlink_to(elsewhere)
    with pytest.raises(UserError, match="lies outside"):
        run_stages(run, chain(run, log, second="z"))
    assert (elsewhere / "file").read_text() == "y"


def test_a_broken_record_is_named(tmp_path, log):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    (run / "stages/second.json").write_text("[1]")
    with pytest.raises(UserError, match=r"stages/second\.json: is not the record"):
        run_stages(run, chain(run, log))


def test_times_are_kept_and_said(tmp_path, log, capsys, monkeypatch):
    run = tmp_path / "run"
    clock = iter(range(0, 10_000, 90))
    monkeypatch.setattr(stage_lib.time, "monotonic", lambda: next(clock))
    run_stages(run, chain(run, log))
    assert "second: done in 1.5 minutes.\n" in capsys.readouterr().out
    assert read_record(run, "second")["seconds"] == 90
    run_stages(run, chain(run, log))  # what is up to date keeps its time
    assert read_record(run, "second")["seconds"] == 90

    def stop(name):
        if name == "third":
            raise KeyboardInterrupt

    # Made anew with another setting, and interrupted: both parts count.
    with pytest.raises(KeyboardInterrupt):
        run_stages(run, chain(run, log, second="y", action=stop))
    assert read_record(run, "third")["seconds"] == 90
    run_stages(run, chain(run, log, second="y"))
    assert read_record(run, "third")["seconds"] == 180
    assert "third: done in 3.0 minutes.\n" in capsys.readouterr().out


def test_times_of_killed_attempts_are_not_known(tmp_path, log, capsys):
    run = tmp_path / "run"
    run_stages(run, chain(run, log))
    path = stage_lib.record_path(run, "third")
    record = json.loads(path.read_text())
    # What a killed process leaves, and so did versions that measured no times.
    del record["seconds"]
    path.write_text(json.dumps({**record, "state": "started"}))
    capsys.readouterr()
    assert run_stages(run, chain(run, log)) == ["third"]
    assert "third: done in more than 0.0 minutes.\n" in capsys.readouterr().out
    path.write_text(json.dumps(record))
    assert run_stages(run, chain(run, log)) == []
    assert stage_lib.minutes_text(read_record(run, "third")) == "?"


def test_two_pipelines_do_not_share_a_folder(tmp_path, log, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(stage_lib, "_LOCK_SECONDS", 0.2)
    with stage_lib.locked(run), pytest.raises(UserError, match="is at work there"):
        run_stages(run, chain(run, log))
    assert not log


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": [1.0]}, {"a": (1.0,)}, ""),
        ({"data": "12 images, ab"}, {"data": "9 images, cd"}, "data: 12 images, ab has become 9 "),
        ({"settings": "A = 1\nB = 2"}, {"settings": "A = 1\nB = 3"}, "settings: now B = 3"),
        ({"settings": "A = 1\nB = 2"}, {"settings": "A = 1"}, "settings: no longer B = 2"),
        ({"settings": "A = (1,\n2,\n3)"}, {"settings": "A = (2,\n1,\n3)"}, "settings: now A = (2"),
        ({"settings": "A = 1\nB = 2"}, {"settings": "B = 2\nA = 1"}, "settings has changed"),
        (
            {"settings": "from wsss_tf import recipe\nimport keras\nA = 1"},
            {"settings": "import keras\nfrom wsss_tf.runs import recipe\nA = 1"},
            "",
        ),
        ({"flags": ["--a", "--b"]}, {"flags": ["--a", "--c"]}, "flags: now --c"),
        ({"flags": ["--a", "--b"]}, {"flags": ["--a"]}, "flags: no longer --b"),
        ({"flags": ["--a", "--b"]}, {"flags": ["--b", "--a"]}, "flags has changed"),
        ({"a": None}, {"a": 3}, "a has changed"),
        ({}, {"a": 3}, "a has changed"),
    ],
)
def test_what_differs_is_said(before, now, text):
    result = stage_lib.difference(before, now)
    assert result == text or (text and result.startswith(text))


_SEAM_ON_LITE = """from wsss_tf.backbones import lite
from wsss_tf.models import seam
from wsss_tf.runs import recipe

# Parameters for recipe.Recipe:
recipe.Recipe.network = @seam.seam_network

# Parameters for seam.seam_network:
seam.seam_network.backbone = @lite.lite
"""
_NEW_METHOD = """from wsss_tf.models import irn

# Parameters for irn.irn_network:
irn.irn_network.backbone = @lite.lite
"""


def test_a_method_that_joins_a_backbone_overlay_makes_nothing_anew():
    def difference(now):
        return stage_lib.difference({"settings": _SEAM_ON_LITE}, {"settings": now})

    assert difference(_NEW_METHOD + _SEAM_ON_LITE) == ""
    other = _SEAM_ON_LITE.replace("@lite.lite", "@lite.other")
    assert difference(other) == "settings: now seam.seam_network.backbone = @lite.other"
    assert "irn" in difference(_NEW_METHOD + _SEAM_ON_LITE.replace("@seam.seam", "@a/irn.irn"))


def test_a_command_without_a_result_is_a_bug(tmp_path, log):
    run = tmp_path / "run"
    stage = Stage("only", (lambda: None,), {}, ("out",), "out")
    with pytest.raises(RuntimeError, match="has ended without"):
        run_stages(run, [stage])

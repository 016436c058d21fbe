import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from wsss_tf.errors import UserError
from wsss_tf.evaluation import plots
from wsss_tf.evaluation.metrics import cam_metrics
from wsss_tf.evaluation.report import ReportImage, report_page
from wsss_tf.evaluation.run_cams import evaluate_run
from wsss_tf.evaluation.threshold_sweep import Sweep, label_pixels
from wsss_tf.files import images, run_folder

NAMES = ("background", "cat", "<dog> & co")


def _image(image_id, classes, shape=(30, 41), seed=0):
    rng = np.random.default_rng(seed)
    return ReportImage(
        image_id=image_id,
        image=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        class_ids=np.array(classes, np.int32),
        cams=rng.random((len(classes), *shape)).astype(np.float16),
        prediction=np.zeros(shape, np.uint8),
        mask=rng.choice(np.array([0, 1, 2, 255], np.uint8), shape),
    )


class _Parser(html.parser.HTMLParser):
    """Collects tags with their attributes, and checks that they are nested properly."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "source", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _parse(path):
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    return parser


def _captions(folder):
    return re.findall("<figcaption>(.*?)</figcaption>", (folder / "report.html").read_text())


@pytest.fixture
def written(tmp_path):
    shown = [_image("a/0001", [1, 2]), _image("b<i>", [2], seed=1), _image("none", [], seed=2)]
    sweep = Sweep(3)
    for image in shown:
        sweep.update(image.class_ids, image.cams, image.mask)
    metrics = cam_metrics(sweep, NAMES, split="val", skipped_images=1)
    page = report_page(
        title="Run <1> of $5 {title}",
        metrics=metrics,
        class_names=NAMES,
        report_images=iter(shown),
        config_text="a.b = '<script>alert(1)</script> $body'",
        skipped=[("bad/<7>", "truncated & broken")],
    )
    (tmp_path / "report.html").write_text(page)
    return tmp_path / "report.html", metrics


def test_report_is_one_file_with_readable_pictures(written):
    path, _ = written
    parser = _parse(path)
    assert "http" not in path.read_text()
    assert not {"link", "iframe", "object"} & {tag for tag, _ in parser.tags}
    assert not any("src" in attributes for tag, attributes in parser.tags if tag == "script")
    sources = [a[key] for _, a in parser.tags for key in ("src", "srcset", "href") if key in a]
    # Two curves, light and dark; four panels each; one more for each class of the first image.
    assert len(sources) == 2 + 3 * 4 + 2
    for source in sources:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", source).groups()
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        picture.load()
        assert picture.format.lower() == kind


def test_report_says_what_it_shows_and_escapes_it(written):
    path, metrics = written
    text = " ".join(_parse(path).text)
    for words in [
        "Run <1> of $5 {title}",
        "mean IoU, split val",
        f"{100 * metrics['miou']:.2f}",
        "<dog> & co",
        "b<i>",
        "CAM: no class",
        "'<script>alert(1)</script> $body'",
        "Images left out: 1",
        "bad/<7>",
        "truncated & broken",
    ]:
        assert words in text


def test_mask_panel_keeps_the_palette_colours(written):
    parser = _parse(written[0])
    pngs = [a["src"] for t, a in parser.tags if t == "img" and "image/png" in a["src"]]
    # The first PNG is the curves; then pseudo label and ground truth of the first image.
    data = base64.b64decode(pngs[2].split(",")[1])
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(picture, images.palette()[_image("", [1, 2]).mask])


def test_large_pictures_are_reduced(tmp_path):
    image = _image("large", [1], shape=(500, 1000))
    sweep = Sweep(3)
    sweep.update(image.class_ids, image.cams, image.mask)
    metrics = cam_metrics(sweep, NAMES, split="val")
    for shown in ([image], []):
        page = report_page(title="t", metrics=metrics, class_names=NAMES, report_images=shown)
        assert len(page) < 700_000  # of CAMs that are noise
    assert "<article>" not in page
    assert "<script" not in page
    assert "Images left out: " not in page


def test_curves_of_several_runs_and_gaps():
    sweep = [
        {"threshold": t / 10, "miou": 0.5 - t / 100, "mfn": t * 9.0, "mfp": None} for t in range(5)
    ]
    for runs in ({"": sweep}, {"seam": sweep, "cam": sweep}):
        for dark in (False, True):
            picture = Image.open(io.BytesIO(plots.curves_png(runs, dark)))
            corner = picture.convert("RGB").getpixel((0, 0))
            assert (sum(corner) < 200) == dark
            assert picture.width > 2 * picture.height
    gaps = [{"threshold": 0.0, "miou": 0.1, "mfn": None, "mfp": None}]
    assert plots.curves_png({"": gaps})


def test_overlay_shows_where_the_cam_is_high():
    image = np.full((4, 6, 3), 100, np.uint8)
    cam = np.zeros((4, 6), np.float16)
    cam[0, 5] = 1
    drawn = plots.overlay(image, cam)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    different = (drawn != drawn[3, 0]).any(-1)
    assert np.argwhere(different).tolist() == [[0, 5]]
    with pytest.raises(ValueError, match=r"\(6, 4\)"):
        plots.overlay(image, cam.T)


# === The loop over a run, without the command ===


class _Source:
    """What `evaluate_run` needs of a source."""

    name, split, has_masks, has_background = "pets", "val", True, True
    class_names = NAMES

    def __init__(self, ids):
        self.ids = ids


@pytest.fixture
def run(tmp_path):
    examples = {name: _image(name, [1, 2], seed=i) for i, name in enumerate(["a", "b/c", "d"])}
    for name, example in examples.items():
        run_folder.save_cams(tmp_path / "cams", name, example.class_ids, example.cams)
    (tmp_path / "config.gin").write_text("# configuration of the run")
    source = _Source(tuple(examples))
    return source, lambda i: vars(examples[source.ids[i]]), tmp_path, examples


def test_run_is_scored_and_written(run):
    source, load, folder, examples = run
    metrics = evaluate_run(source, load, folder, background_threshold=0.455)
    right = sum(
        (label_pixels(e.class_ids, e.cams, 0.455) == e.mask).sum() for e in examples.values()
    )
    valid = sum((e.mask != 255).sum() for e in examples.values())
    assert metrics["pixel_accuracy"] == pytest.approx(right / valid)
    assert metrics["num_images"] == 3
    assert len(metrics["sweep"]) == 60
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert Image.open(folder / "curves.png").format == "PNG"
    text = " ".join(_parse(folder / "report.html").text)
    assert "# configuration of the run" in text
    assert _captions(folder).count("ground truth") == 3
    assert "pseudo label at 0.455" in text


def test_bad_images_are_left_out_and_counted(run):
    source, load, folder, _ = run
    (folder / "cams" / "b" / "c.npz").unlink()
    bad = [["b/c", "truncated"], ["of/another/split", "empty"], ["b/c", "said twice"]]
    (folder / "bad_images.json").write_text(json.dumps(bad))
    metrics = evaluate_run(source, load, folder, num_report_images=1)
    assert (metrics["num_images"], metrics["skipped_images"]) == (2, 1)
    text = " ".join(_parse(folder / "report.html").text)
    assert "Images left out: 1" in text
    assert _captions(folder).count("ground truth") == 1


def _remove_cams(run):
    for name in ("b/c", "d"):
        (run[2] / "cams" / f"{name}.npz").unlink()


def _truncate_cams(run):
    path = run[2] / "cams" / "d.npz"
    path.write_bytes(path.read_bytes()[:100])


def _other_file(run):
    np.savez(run[2] / "cams" / "d.npz", scores=np.zeros(3))


def _other_size(run):
    run_folder.save_cams(run[2] / "cams", "d", [1], np.zeros((1, 41, 30)))


def _other_class(run):
    run_folder.save_cams(run[2] / "cams", "d", [7], np.zeros((1, 30, 41)))


def _no_masks(run):
    run[0].has_masks = False


def _no_background(run):
    run[0].has_background, run[0].class_names = False, ("sky", "road", "car")


def _all_ignored(run):
    for example in run[3].values():
        example.mask[:] = 255


def _broken_bad_images(run):
    (run[2] / "bad_images.json").write_text('["a"]')


def _all_bad(run):
    (run[2] / "bad_images.json").write_text('[["a", ""], ["b/c", ""], ["d", ""]]')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_remove_cams, r"2 of 3 images of split 'val' .*b/c\.npz.*wsss_tf\.infer --run_dir=.*val"),
        (_truncate_cams, r"d\.npz: cannot be read as a CAM file"),
        (_other_file, r"d\.npz: cannot be read as a CAM file.*class_ids"),
        (_other_size, r"d\.npz.*\(41, 30\), the mask's is \(30, 41\)"),
        (_other_class, r"d\.npz.*\[7\]"),
        (_no_masks, "'val' has no masks"),
        (_no_background, "'sky', not 'background'.*needs a background class"),
        (_all_ignored, "all 255"),
        (_broken_bad_images, r"bad_images\.json: not a list"),
        (_all_bad, r"bad_images\.json lists all images"),
    ],
)
def test_what_cannot_be_scored(run, spoil, message):
    spoil(run)
    with pytest.raises(UserError, match=message):
        evaluate_run(*run[:3])
    assert not (run[2] / "metrics.json").exists()

"""The report's slider, filter and order: what the page holds, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from wsss_tf.evaluation.confusion import Confusion, class_iou
from wsss_tf.evaluation.explorer import image_scores, score_text, slider_thresholds
from wsss_tf.evaluation.metrics import cam_metrics, mask_metrics
from wsss_tf.evaluation.report import ReportImage, report_page
from wsss_tf.evaluation.threshold_sweep import THRESHOLDS, Sweep, label_pixels
from wsss_tf.files import images

NAMES = ("background", "cat", "<dog> & co", "cow")
USED = 0.26


def example(seed, classes, shape=(30, 41)):
    """An image whose CAMs have to do with its mask, the more so the lower the seed."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for i, value in enumerate(classes):
        mask[4 : 20 + seed, 3 + 15 * i : 14 + 15 * i] = value
    hit = mask == np.reshape(classes, (-1, 1, 1))
    cams = (0.15 + 0.1 * seed) * rng.random(hit.shape) + 0.5 * hit * rng.random(shape)
    mask[-3:] = 255
    return ReportImage(
        image_id=f"image{seed}",
        image=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        class_ids=np.array(classes, np.int32),
        cams=cams.astype(np.float16),
        prediction=label_pixels(np.array(classes), cams.astype(np.float16), USED),
        mask=mask,
    )


EXAMPLES = [example(3, [1, 2]), example(0, [2]), example(5, [1]), example(1, [1, 2])]


def scores_at(image, threshold):
    prediction = label_pixels(image.class_ids, image.cams, threshold)
    return image_scores(prediction, image.mask, len(NAMES))


def worst_first(threshold, class_id=None):
    def score(image):
        scores = scores_at(image, threshold)
        return scores["miou"] if class_id is None else scores["iou"][class_id]

    shown = [e for e in EXAMPLES if class_id is None or class_id in e.class_ids]
    return [image.image_id for image in sorted(shown, key=score)]


@pytest.fixture(scope="module")
def cam_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("cams") / "report.html"
    sweep = Sweep(len(NAMES))
    for one in EXAMPLES:
        sweep.update(one.class_ids, one.cams, one.mask)
    metrics = cam_metrics(sweep, NAMES, split="val", background_threshold=USED)
    path.write_text(
        report_page(title="t", metrics=metrics, class_names=NAMES, report_images=EXAMPLES)
    )
    return path, metrics


@pytest.fixture(scope="module")
def mask_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("masks") / "report.html"
    confusion = Confusion(len(NAMES))
    shown = []
    for one in EXAMPLES:
        confusion.update(one.mask, one.prediction)
        shown.append(ReportImage(one.image_id, one.image, one.prediction, one.mask.copy()))
    shown[2].mask[:] = 255
    metrics = mask_metrics(confusion.matrix, NAMES, num_images=4, ignored_pixels=0)
    page = report_page(title="t", metrics=metrics, class_names=NAMES, report_images=shown)
    path.write_text(page)
    return path, metrics


# === What the page holds ===


def test_scores_of_one_image():
    image = EXAMPLES[0]
    confusion = Confusion(len(NAMES))
    confusion.update(image.mask, image.prediction)
    scores = image_scores(image.prediction, image.mask, len(NAMES))
    assert scores["miou"] == pytest.approx(np.nanmean(class_iou(confusion.matrix)))
    assert list(scores["iou"]) == [0, 1, 2]
    valid = image.mask != 255
    right = np.mean(image.prediction[valid] == image.mask[valid])
    assert scores["accuracy"] == pytest.approx(right)
    expected = f"mIoU {100 * scores['miou']:.1f} · {100 * right:.1f} % of pixels right"
    assert score_text(scores) == expected
    nothing = image_scores(image.prediction, np.full_like(image.mask, 255), len(NAMES))
    assert (nothing, score_text(nothing)) == (
        {"miou": None, "accuracy": None, "iou": {}},
        "no ground truth",
    )


def test_slider_has_the_threshold_of_the_table():
    sweep = Sweep(len(NAMES), np.union1d(THRESHOLDS, np.float32([0.455])))
    for one in EXAMPLES:
        sweep.update(one.class_ids, one.cams, one.mask)
    metrics = cam_metrics(sweep, NAMES, background_threshold=0.455)
    thresholds, miou = slider_thresholds(metrics)
    assert (len(metrics["sweep"]), len(thresholds)) == (60, 61)
    assert thresholds == sorted(thresholds)
    assert miou[thresholds.index(0.455)] == metrics["miou"]
    assert slider_thresholds({"miou": 0.5}) == ([], [])


def data_of(path):
    [text] = re.findall(
        r"<script type='application/json' id='data'>(.*?)</script>", path.read_text()
    )
    return json.loads(text)


def test_page_without_javascript_is_whole(cam_page, mask_page):
    for path, _ in (cam_page, mask_page):
        text = path.read_text()
        assert text.count("<article>") == 4
        assert re.search(r"<form class='controls' id='controls' hidden>", text)
        assert "http" not in text
    images = data_of(cam_page[0])["images"]
    assert [one["classes"] for one in images] == [[0, 1, 2], [0, 2], [0, 1], [0, 1, 2]]
    assert all(one["maps"]["ids"] for one in images)
    data = data_of(mask_page[0])
    assert data["thresholds"] == []
    assert not any("maps" in one for one in data["images"])
    assert "type='range'" not in mask_page[0].read_text()


def test_large_images_keep_the_page_small(tmp_path):
    rng = np.random.default_rng(0)
    ramp = np.hypot(*np.mgrid[-1:1:1200j, -1:1:1600j])[None].clip(0, 1)
    ramp += 0.02 * rng.random(ramp.shape)
    image = ReportImage(
        "large",
        np.zeros((1200, 1600, 3), np.uint8),
        np.zeros((1200, 1600), np.uint8),
        np.zeros((1200, 1600), np.uint8),
        np.array([1]),
        ramp.clip(0, 1),
    )
    sweep = Sweep(len(NAMES))
    sweep.update(image.class_ids, image.cams, image.mask)
    metrics = cam_metrics(sweep, NAMES)
    path = tmp_path / "report.html"
    path.write_text(
        report_page(title="t", metrics=metrics, class_names=NAMES, report_images=[image])
    )
    maps = data_of(path)["images"][0]["maps"]
    assert (maps["height"], maps["width"]) == (384, 512)
    assert len(maps["png"]) < 250_000


# === In a browser ===

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Return a function of (page, fragment) to the DOM that headless Chromium ends with.

    With `screenshot=FILE` it writes what it shows instead.
    """
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        pytest.skip("skipped: no Chromium")
    profile = tmp_path_factory.mktemp("profile")

    def run(path, fragment="", screenshot=None):
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        # Time runs as fast as there is nothing to wait for, until all is drawn.
        flags += ["--virtual-time-budget=20000", "--hide-scrollbars"]
        # As large as the page, so that all of it is painted.
        flags += [f"--screenshot={screenshot}" if screenshot else "--dump-dom"]
        flags += ["--window-size=1200,2400"]
        url = path.as_uri() + (f"#{fragment}" if fragment else "")
        result = subprocess.run([program, *flags, url], capture_output=True, text=True, timeout=120)
        assert screenshot or 'data-ready="true"' in result.stdout, result.stderr
        return result.stdout

    return run


def cards(dom):
    """Return (image id, score line, is it shown) of the articles, in their order."""
    found = re.findall(
        r"<article( hidden=\"\")?><h3>(.*?)<small class=\"score\">(.*?)</small>", dom
    )
    return [(name, score, not hidden) for hidden, name, score in found]


def text_of(dom, element):
    return html.unescape(re.search(rf'id="{element}"[^>]*>(.*?)</', dom)[1])


def test_page_as_it_opens(browse, cam_page):
    path, metrics = cam_page
    dom = browse(path)
    expected = [(e.image_id, score_text(scores_at(e, USED)), True) for e in EXAMPLES]
    assert cards(dom) == expected
    assert text_of(dom, "count") == "4 of 4 images"
    assert text_of(dom, "threshold-value") == "0.26"
    assert f"{100 * metrics['miou']:.2f} % at 0.26" in text_of(dom, "threshold-score")
    assert re.search(r'<form class="controls" id="controls">', dom)
    assert dom.count("<canvas") == 4


def test_moved_slider_relabels_scores_and_sorts(browse, cam_page):
    path, metrics = cam_page
    dom = browse(path, "threshold=0.4&order=worst")
    expected = {e.image_id: score_text(scores_at(e, 0.4)) for e in EXAMPLES}
    found = cards(dom)
    assert {name: score for name, score, _ in found} == expected
    assert [name for name, _, _ in found] == worst_first(0.4)
    assert worst_first(0.4) != [e.image_id for e in EXAMPLES]
    assert dom.count("pseudo label at 0.4<") == 4
    assert f"{100 * metrics['sweep'][40]['miou']:.2f} % at 0.4," in text_of(dom, "threshold-score")
    # The point is on the curve, and not where it was.
    points = re.search(r'points="([^"]*)"', dom)[1].split()
    x, y = re.search(r'id="point" r="5" cx="([^"]*)" cy="([^"]*)"', dom).groups()
    assert points.index(f"{x},{y}") == 40


def test_pseudo_labels_are_painted(browse, cam_page, tmp_path):
    seen = {}
    for threshold in (0, 0.59):
        file = tmp_path / f"{threshold}.png"
        browse(cam_page[0], f"threshold={threshold}", screenshot=file)
        picture = np.asarray(Image.open(file).convert("RGB"))
        seen[threshold] = (picture == images.palette()[1]).all(-1).sum()
    # A threshold of 0 labels all of three images, 0.59 next to nothing; the rest is ground truth.
    assert seen[0] > 1.5 * seen[0.59] > 500


_HAND = """
<script>
const images = document.getElementById("images");
new MutationObserver((_, observer) => {
  observer.disconnect();
  const move = (id, value, ...events) => {
    const control = document.getElementById(id);
    control.focus();
    control.value = value;
    for (const event of events) control.dispatchEvent(new Event(event));
    return document.activeElement === control;
  };
  const kept = [
    move("threshold", 40, "input", "change"), move("class", "cat", "change"),
    move("order", "best", "change"),
  ];
  document.title = location.hash + " " + kept;
}).observe(images, { attributes: true, attributeFilter: ["data-ready"] });
</script>
"""


def test_controls_moved_by_hand_change_page_and_address(browse, cam_page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(cam_page[0].read_text().replace("</body>", _HAND + "</body>"))
    dom = browse(path, "overlay=1")
    title = html.unescape(re.search("<title>(.*?)</title>", dom)[1])
    assert title == "#threshold=0.4&class=cat&order=best&overlay=1 true,true,true"
    shown = [name for name, _, is_shown in cards(dom) if is_shown]
    assert shown == worst_first(0.4, class_id=1)[::-1]
    assert text_of(dom, "threshold-value") == "0.4"


def test_filter_by_class(browse, cam_page):
    dom = browse(cam_page[0], "class=%3Cdog%3E+%26+co&order=worst&threshold=0.1&overlay=1")
    shown = [card for card in cards(dom) if card[2]]
    assert [name for name, _, _ in shown] == worst_first(0.1, class_id=2)
    assert text_of(dom, "count") == "3 of 4 images"
    iou = scores_at(EXAMPLES[1], 0.1)["iou"][2]
    score = {name: html.unescape(score) for name, score, _ in shown}["image0"]
    assert f"<dog> & co {100 * iou:.1f} · " in score
    assert "image5" in [name for name, _, is_shown in cards(dom) if not is_shown]


def test_masks_have_filter_and_order_without_slider(browse, mask_page):
    dom = browse(mask_page[0], "order=worst&threshold=0.4&class=nonsense")
    names = [name for name, _, _ in cards(dom)]
    assert names == [name for name in worst_first(USED) if name != "image5"] + ["image5"]
    assert cards(dom)[-1][1] == "no ground truth"
    assert "<canvas" not in dom
    dom = browse(mask_page[0], "class=cat")
    assert text_of(dom, "count") == "3 of 4 images"

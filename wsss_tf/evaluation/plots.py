"""Pictures of results: curves over the background threshold, CAM overlays, coloured masks."""

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wsss_tf.files import images

# Text and grid colours that read well on a white page and on a dark one.
_LIGHT = {"text": "#3d4450", "grid": "#e3e6ea", "face": "#ffffff"}
_DARK = {"text": "#b9c0cb", "grid": "#343a44", "face": "#1b1f26"}
_LINES = ["#3b7dd8", "#e0803a", "#3fa46a", "#b65fc4", "#c8a02b", "#d2526a", "#43a7b5", "#8a8f99"]
_RATIOS = [("mfn", "-", "mFN, under-activation"), ("mfp", "--", "mFP, over-activation")]


def curves_png(runs, dark=False):
    """Draw mIoU, and mFN and mFP as in figure 6 of the SEAM paper, over the background threshold.

    Args:
      runs: {name: sweep}, any number of runs to compare; a sweep is the list of {`threshold`,
        `miou`, `mfn`, `mfp`} that `metrics.json` holds. None as `mfn` or `mfp` leaves a gap.
      dark: draw for a dark page.

    Returns:
      bytes: a PNG.
    """
    # A Figure of its own, not pyplot's: no global state, no display, nothing to close.
    colours = _DARK if dark else _LIGHT
    figure = Figure(figsize=(10, 3.8), dpi=144, facecolor=colours["face"], layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    is_comparison = len(runs) > 1
    for number, (name, sweep) in enumerate(runs.items()):
        colour = _LINES[number % len(_LINES)]
        threshold = [point["threshold"] for point in sweep]
        miou = [100 * point["miou"] for point in sweep]
        best = int(np.argmax(miou))
        text = f"{miou[best]:.2f} at {threshold[best]:g}"
        left.plot(threshold, miou, color=colour, linewidth=2, label=f"{name}, {text}")
        left.plot(threshold[best], miou[best], "o", color=colour, markersize=7)
        if not is_comparison:  # beside each other they would overlap; then the legend says it
            left.annotate(
                text,
                (threshold[best], miou[best]),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontweight="bold",
            )
        for key, style, _ in _RATIOS:
            values = [np.nan if point[key] is None else point[key] for point in sweep]
            # A single run has a colour for each of its curves, several have one colour each.
            shade = colour if is_comparison else _LINES[style == "--"]
            right.plot(threshold, values, style, color=shade, linewidth=2)
    left.set(title="Mean IoU (%)", xlabel="background threshold")
    left.margins(y=0.16)
    right.set(title="mFN and mFP (lower is better)", xlabel="background threshold")
    _limit_ratio(right)
    for axes in (left, right):
        _style(axes, colours)
    if is_comparison:
        left.legend(frameon=False, labelcolor=colours["text"])
    keys = [
        Line2D([], [], color=colours["text"] if is_comparison else shade, linestyle=style)
        for (_, style, _), shade in zip(_RATIOS, _LINES)
    ]
    meanings = [meaning for _, _, meaning in _RATIOS]
    right.legend(keys, meanings, frameon=False, labelcolor=colours["text"])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=colours["face"])
    return buffer.getvalue()


def _limit_ratio(axes):
    """Keep ratios below 3 readable when others, of classes hardly ever hit, are in the hundreds."""
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    highest = np.nanmax(values, initial=0)
    if highest > 10:
        axes.set_yscale("asinh", linear_width=1)  # linear near 0, logarithmic far from it
        ticks = [0, *(digit * 10.0**power for power in range(9) for digit in (1, 3))]
        axes.set_yticks([tick for tick in ticks if tick <= highest])
        axes.set_yticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)


def _style(axes, colours):
    axes.set_facecolor(colours["face"])
    axes.title.set_color(colours["text"])
    axes.xaxis.label.set_color(colours["text"])
    axes.tick_params(colors=colours["text"], length=0)
    axes.grid(color=colours["grid"], linewidth=1)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def overlay(image, cam):
    """Draw a CAM over a picture: the stronger the score, the more of the colour scale shows.

    Args:
      image: uint8 [h, w, 3] RGB.
      cam: [h, w], clipped to [0, 1].

    Returns:
      uint8 [h, w, 3].

    Raises:
      ValueError: the sizes differ.
    """
    cam = np.clip(np.asarray(cam, np.float32), 0, 1)
    if image.shape[:2] != cam.shape:
        raise ValueError(f"a CAM of {cam.shape} does not cover an image of {image.shape[:2]}.")
    heat = matplotlib.colormaps["turbo"](cam)[..., :3] * 255
    opacity = 0.25 + 0.5 * cam[..., None]
    # Grey below the colours: a red object must not look like a high score.
    grey = image.mean(axis=-1, keepdims=True)
    return np.round((1 - opacity) * grey + opacity * heat).astype(np.uint8)


def mark_pixel(picture, row, column, colour=(0, 255, 0), arm=None):
    """Return a picture with a cross at a pixel.

    Args:
      picture: uint8 [h, w, 3].
      row, column: the pixel.
      colour: of the cross, RGB.
      arm: its half length in pixels; None for a fortieth of the picture's longer side, at least 3.
    """
    marked = picture.copy()
    arm = max(3, max(picture.shape[:2]) // 40) if arm is None else arm
    marked[max(0, row - arm) : row + arm + 1, column] = colour
    marked[row, max(0, column - arm) : column + arm + 1] = colour
    return marked


def colour_mask(mask):
    """Return a mask, uint8 [h, w], in the palette's colours, uint8 [h, w, 3]."""
    return images.palette()[mask]

"""The look that all reports share: one self-contained page, and the pictures in it."""

import base64
import html
import io
import pathlib
import string

import numpy as np
from PIL import Image

from wsss_tf.evaluation import plots
from wsss_tf.files import images
from wsss_tf.masks import IGNORE

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_THUMBNAIL = 360  # pixels on the longer side: four across fill a wide screen


def page(title, body):
    """Return a page that looks like the other reports.

    Args:
      title: plain text.
      body: strings of HTML.
    """
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body="\n".join(body))


def photo(pixels, caption, size=_THUMBNAIL):
    """Return a picture, uint8 [h, w, 3], with a caption of HTML below, as HTML.

    Args:
      pixels: the picture.
      caption: HTML.
      size: pixels on the longer side that it is reduced to.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    return figure(_encoded(picture, "jpeg", quality=85), caption)


def mask_panel(mask, caption, name=None):
    """Return a mask, uint8 [h, w], in its colours, with a caption of HTML below, as HTML.

    Args:
      mask: values of the palette.
      caption: HTML.
      name: class attribute of the figure; None for none.
    """
    picture = Image.fromarray(plots.colour_mask(mask))
    scale = min(1, _THUMBNAIL / max(picture.size))
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize(size, Image.Resampling.NEAREST)
    # An adaptive palette of at most 256 colours loses nothing: a mask has no more.
    return figure(_encoded(picture.quantize(256), "png", optimize=True), caption, name)


def cam_panel(image, class_ids, cams, class_names):
    """Return a picture under the strongest of its CAMs, as HTML.

    Args:
      image: uint8 [h, w, 3] RGB.
      class_ids: int [P], mask values of the classes present.
      cams: [P, h, w] in [0, 1].
      class_names: K strings in mask order.
    """
    strongest = cams.max(axis=0) if len(class_ids) else np.zeros(image.shape[:2])
    present = ", ".join(html.escape(class_names[i]) for i in class_ids) or "no class"
    return photo(plots.overlay(image, strongest), f"CAM: {present}")


def legend(masks, class_names):
    """Return the names and colours of all classes in some arrays of mask values, as HTML."""
    values = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    names = {value: "ignored" if value == IGNORE else class_names[value] for value in values}
    spans = (f"<span>{swatch(value)}{html.escape(name)}</span>" for value, name in names.items())
    return f"<p class='legend'>{''.join(spans)}</p>"


def swatch(value):
    """Return a square in the colour of a mask value, as HTML."""
    red, green, blue = images.palette()[value]
    return f"<i class='swatch' style='background:rgb({red},{green},{blue})'></i>"


def figure(uri, caption, name=None):
    """Return the picture at a URI with a caption of HTML below, as HTML; `name` as in `mask_panel`.

    The picture has no text of its own: the caption says what it is.
    """
    start = f"<figure class='{name}'>" if name else "<figure>"
    picture = f'<img src="{uri}" alt="" loading="lazy">'
    return f"{start}{picture}<figcaption>{caption}</figcaption></figure>"


def _encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), kind)


def grey_png(pixels):
    """Return uint8 [h, w] as the URI of a grey PNG that holds exactly these values."""
    # A tenth of the time that the smallest file takes, for a twentieth more bytes.
    return _encoded(Image.fromarray(pixels), "png", compress_level=6)


def data_uri(data, kind):
    """Return the bytes of a picture of a kind, such as "png", as a URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

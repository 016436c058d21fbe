"""Labels and masks of the same pictures compared: they must speak of the same classes."""

import concurrent.futures
import typing

import numpy as np
from PIL import Image

from wsss_tf.data.lists import evenly_spread
from wsss_tf.errors import UserError
from wsss_tf.files import images
from wsss_tf.files.pictures import DAMAGED
from wsss_tf.masks import IGNORE

SAMPLE = 200
# With fewer pictures "most" says little.
_FEWEST = 4
_AGREE = 0.9
_NAMED = 6
_UNLESS = "(folder_source.compare_masks=False leaves this comparison out)"


class _Seen(typing.NamedTuple):
    """What is in a mask: its values; or else the mode of a file that is no mask, "" if broken."""

    values: frozenset | None
    mode: str = ""


def compare_labels_with_masks(source):
    """Compare the labels that were given with the classes that masks show, where there are both.

    Up to 200 masks are read, evenly spread over the split; more would not tell more.

    Args:
      source: `data.source.Source`. Without `tagged` nothing is compared.

    Returns:
      list of lines on pictures whose labels and masks differ.

    Raises:
      UserError: most of them do, or masks are of a kind that holds no classes; the line says what
        is probably wrong.
    """
    if source.tagged is None or source.mask_paths is None:
        return []
    masked = [i for i, path in enumerate(source.mask_paths) if path]
    chosen = evenly_spread(masked, SAMPLE)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        seen = dict(zip(chosen, pool.map(_look, [source.mask_paths[i] for i in chosen])))
    _check_kind(source, seen)
    values_of = {i: seen[i].values for i in chosen if seen[i].values is not None}
    compared = [i for i in values_of if source.tagged[i]]
    first = int(source.has_background)
    background = {0} if source.has_background else set()
    labels_of = {i: set((np.flatnonzero(source.labels[i]) + first).tolist()) for i in compared}
    shown = {i: values_of[i] - {IGNORE} - background for i in compared}
    differ = [i for i in compared if labels_of[i] != shown[i]]
    if not differ:
        return []
    example = (
        f"{source.ids[differ[0]]!r}: its labels are {_names(source, labels_of[differ[0]])}, its "
        f"mask shows {_names(source, shown[differ[0]])}"
    )
    count = (
        f"{source.name}: the labels of {len(differ)} of {len(compared)} pictures compared differ "
        f"from the classes in their masks"
    )
    if len(compared) < _FEWEST or 2 * len(differ) <= len(compared):
        return [f"{count}, such as {example}."]
    if order := _other_order(source, labels_of, shown):
        raise UserError(
            f"{count}, which follow another order of names: {order}; list the names in "
            f"class_names.txt in the order of the masks' values (without that file they are sorted "
            f"by name). {_UNLESS}"
        )
    raise UserError(
        f"{count}, such as {example}; are they masks of these pictures, with the values that "
        f"class_names.txt gives? {_UNLESS}"
    )


def _look(path):
    try:
        mask = images.load_mask(path)
    except UserError:
        try:
            with Image.open(path) as picture:
                return _Seen(None, picture.mode)
        except DAMAGED:
            return _Seen(None)
    return _Seen(frozenset(np.flatnonzero(np.bincount(mask.ravel())).tolist()))


def _check_kind(source, seen):
    """Check that masks are neither colours nor black and white."""
    odd = [i for i, mask in seen.items() if mask.mode]
    if 2 * len(odd) > len(seen):
        mode = seen[odd[0]].mode
        kind = "in 16 bits" if mode.startswith("I") else f"in colours ({mode})"
        raise UserError(
            f"{source.name}: {len(odd)} of {len(seen)} masks looked at are {kind}, such as "
            f"{source.mask_paths[odd[0]]}; a pixel of a mask is the number of its class: save "
            f"palette PNGs or grey ones of 8 bits. {_UNLESS}"
        )
    values = frozenset().union(*(mask.values or () for mask in seen.values()))
    if values == {0, IGNORE}:
        raise UserError(
            f"{source.name}: the {len(seen)} masks looked at hold only 0 and {IGNORE}, and "
            f"{IGNORE} means 'ignored'; did you mean 1? Write the class's number for {IGNORE}. "
            f"{_UNLESS}"
        )


def _other_order(source, labels_of, shown):
    """Return what the masks' values seem to mean, "" if they do not follow the labels."""
    first = int(source.has_background)
    values = sorted(frozenset().union(*shown.values()))
    means = {}
    for label in sorted(set().union(*labels_of.values())):
        is_labelled = np.array([label in labels_of[i] for i in labels_of])
        agree = [np.mean(is_labelled == [value in shown[i] for i in labels_of]) for value in values]
        if not agree or max(agree) < _AGREE:
            return ""
        # Its own value, if that is as good as any.
        own = label in values and agree[values.index(label)] == max(agree)
        value = label if own else values[int(np.argmax(agree))]
        if value in means:
            return ""
        means[value] = source.foreground_names[label - first]
    if all(source.class_names[value : value + 1] == (name,) for value, name in means.items()):
        return ""
    some = [f"{value} is {name!r}" for value, name in sorted(means.items())]
    return ", ".join(some[:_NAMED]) + (", ..." if len(some) > _NAMED else "")


def _names(source, values):
    """Return the names of mask values, as text."""
    known = len(source.class_names)
    names = [source.class_names[v] if v < known else f"{v} (no class)" for v in sorted(values)]
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "") or "none"

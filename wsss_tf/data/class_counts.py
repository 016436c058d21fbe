"""How many pictures show each class, and what labels like these cannot teach."""

import numpy as np

_MOST_LINES = 25
_FEW = 10
_NAMED = 5


def class_lines(source):
    """Return lines with the number of pictures of each class; a summary where there are many.

    Args:
      source: `data.source.Source`.
    """
    counts = source.labels.sum(0).astype(int)
    if not counts.any():
        return []
    names = source.foreground_names
    head = f"{source.name}/{source.split}: {len(source)} images; those that show each class"
    if len(names) > _MOST_LINES:
        order = np.argsort(-counts, kind="stable")
        most, least = names[order[0]], names[order[-1]]
        return [
            f"{head}: {len(names)} classes, from {counts[order[-1]]} ({least}) to "
            f"{counts[order[0]]} ({most}), median {int(np.median(counts))}."
        ]
    width = max(map(len, names))
    lines = [f"{head}:", *(f"  {name:<{width}} {count:>6}" for name, count in zip(names, counts))]
    negatives = int((~source.labels.any(axis=1)).sum())
    return [*lines, f"  none of them: {negatives}"] if negatives else lines


def class_warnings(source):
    """Return lines on classes that the split's labels hardly teach.

    These are classes that every picture shows, that none or fewer than 10 show, and pairs that
    always come together.

    Args:
      source: `data.source.Source`.
    """
    labels = source.labels > 0
    counts = labels.sum(0)
    if len(source) < 2 or not labels.any():
        return []
    of = dict(zip(source.foreground_names, counts))
    lines = []
    if always := [repr(name) for name, count in of.items() if count == len(source)]:
        lines.append(
            f"all {len(source)} pictures show {_some(always)}: labels alone do not tell from what "
            "is around it a thing that is everywhere; add pictures without it."
        )
    if never := [repr(name) for name, count in of.items() if not count]:
        lines.append(f"no picture of split {source.split!r} shows {_some(never)}.")
    if few := [f"{name!r} ({count})" for name, count in of.items() if 0 < count < _FEW]:
        lines.append(f"few pictures show {_some(few)}; some tens of each are better.")
    alike = {}
    for name, column in zip(source.foreground_names, labels.T):
        if 1 < column.sum() < len(source):
            alike.setdefault(column.tobytes(), []).append(name)
    together = [
        f"{' and '.join(map(repr, names[:_NAMED]))} ({of[names[0]]} pictures)"
        for names in alike.values()
        if len(names) > 1
    ]
    if together:
        lines.append(
            f"these always come together: {_some(together)}; labels alone cannot tell them apart. "
            "If they are words of one name, put ';' behind it in the labels."
        )
    return lines


def _some(texts):
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more

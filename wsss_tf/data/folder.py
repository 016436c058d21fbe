"""The user's own pictures: a folder in VOC layout, or only images and a table of labels."""

import pathlib
import unicodedata

import numpy as np

from wsss_tf.data.label_table import labels_by_image, read_label_table
from wsss_tf.data.lists import labels_from_masks, read_id_list
from wsss_tf.data.picture_names import PictureNames
from wsss_tf.data.source import file_source, reduced_source
from wsss_tf.errors import UserError
from wsss_tf.files.folder_layout import LABEL_FILE, MASK_FOLDER, NAMES_FILE, image_folder
from wsss_tf.files.picture_files import OTHER_PICTURES, find_pictures, search
from wsss_tf.files.text import check_one_line, read_text
from wsss_tf.masks import IGNORE


def folder_source(split="all", root=None, require_labels=False, max_side=None, compare_masks=True):
    """Return a split of a folder of images with labels, masks, or both.

        ROOT/JPEGImages/          .jpg, .jpeg or .png; or the images are in ROOT itself
        ROOT/SegmentationClass/   optional masks, palette or 8-bit grey PNG, named as the images
        ROOT/class_names.txt      one name a line, in mask order
        ROOT/image_labels.csv     columns image, labels; see `label_table`
        ROOT/ImageSets/Segmentation/SPLIT.txt      optional lists, one image a line

    An image's id is its path below the image folder, without suffix; subfolders may be used.

    Args:
      split: the name of a list in ImageSets/Segmentation; "all" where there are no lists.
      root: the folder.
      require_labels: refuse a split with an image of which nothing is known: weak training learns
        nothing from it.
      max_side: long side, pixels, that larger pictures and their masks are read at; None for their
        own sizes. What is made from them (maps, labels, scores) has the size that they are read at.
      compare_masks: have training compare labels that were given with the masks, where there are
        both; see `agreement`.

    Returns:
      `data.source.Source`. Its classes are those of class_names.txt; if the first is "background",
      the set can be learnt weakly. Without that file they are "background" and the sorted labels of
      image_labels.csv. An image's labels are those of its rows in image_labels.csv, with or
      without suffix, separated by spaces, or by ";" if any row has one; the labels of an image
      that has no row are the classes in its mask. "background" as the only label, or a mask of
      nothing else, says that an image shows none of the classes.

    Raises:
      UserError: a folder, list or file is missing; the split is empty or unknown; an image has a
        label that is no class name, or none where it needs one.
    """
    root = _folder(root, "folder_source.root")
    pictures = image_folder(root)
    image_files, note = find_pictures(pictures, leave_out=MASK_FOLDER)
    warnings = [note] if note else []
    names = PictureNames(image_files, pictures)
    ids = _split_ids(root, split, names)
    mask_files, mask_warnings = _find_masks(root / MASK_FOLDER, names)
    warnings += mask_warnings if (root / MASK_FOLDER).is_dir() else _masks_elsewhere(root, names)
    mask_paths = [mask_files.get(image_id, "") for image_id in ids]
    if any(mask_paths) and (count := mask_paths.count("")):
        warnings.append(f"{root}: {count} of {len(ids)} pictures of {split!r} have no mask.")

    class_names = _names_from_file(root / NAMES_FILE)
    rows = _read_table(root / LABEL_FILE, class_names or ())
    if class_names is None:
        class_names = _names_from_table(root, rows)
    labels_of = {}
    strangers = []
    for name, found in labels_by_image(rows, class_names).items():
        if (image_id := names.find(name)) is None:
            strangers.append(name)
        else:
            labels_of.setdefault(image_id, set()).update(found)
    labels = _multi_hot(root, labels_of, ids, class_names)
    if strangers:
        line = _strangers(root / LABEL_FILE, strangers, rows, names, pictures)
        if split == "all":
            raise UserError(line)
        warnings.append(line)
    no_row = [i for i, image_id in enumerate(ids) if image_id not in labels_of and mask_paths[i]]
    from_masks, is_readable = labels_from_masks([mask_paths[i] for i in no_row], class_names)
    labels[no_row] = from_masks
    negative = np.array([labels_of.get(image_id) == {"background"} for image_id in ids])
    negative[no_row] = is_readable & ~from_masks.any(axis=1)

    source = file_source(
        name=root.resolve().name,
        split=split,
        class_names=class_names,
        ids=ids,
        labels=labels,
        image_paths=[image_files[image_id] for image_id in ids],
        mask_paths=mask_paths,
        warnings=warnings,
        tagged=[image_id in labels_of for image_id in ids] if compare_masks else None,
        negative=negative.tolist(),
    )
    if require_labels:
        # A mask that cannot be read is for `data.checks` to report, with the reason.
        unreadable = {ids[i] for i, readable in zip(no_row, is_readable) if not readable}
        without = [ids[i] for i in np.flatnonzero(source.unlabelled()) if ids[i] not in unreadable]
        if without:
            raise UserError(
                f"{root}: image {without[0]!r} of split {split!r} has no label"
                f"{_and_more(without)}, but training needs one; give it a row in {LABEL_FILE} "
                "(with the label background if it shows none of the classes), or leave it out."
            )
    return source if max_side is None else reduced_source(source, max_side)


def training_folder(root):
    """Return the absolute path, a string, of a folder that holds labels or masks to learn from.

    Raises:
      UserError: no such folder, or neither labels nor masks are in it.
    """
    path = _folder(root, "--data").absolute()
    if not (path / LABEL_FILE).is_file() and not (path / MASK_FOLDER).is_dir():
        raise UserError(
            f"--data={root}: no {LABEL_FILE} in it, which says what each picture shows: a first "
            "line image,labels and then lines such as 0001.jpg,cat dog. python -m wsss_tf.labels "
            "makes it from COCO, VOC XML, LabelMe, CVAT, Label Studio, YOLO, tables or a folder a "
            "class."
        )
    return str(path)


def training_split(root):
    """Return the name of the split of a folder to train on.

    That is the list "train", or else "trainaug", or else the only one beside "val"; "all" where
    there are no lists.

    Raises:
      UserError: none of the lists is clearly the one.
    """
    lists = _lists(pathlib.Path(root))
    others = [name for name in lists if name != "val"]
    for name in ("train", "trainaug"):
        if name in lists:
            return name
    if len(others) == 1:
        return others[0]
    if lists:
        raise UserError(
            f"--data={root}: which of the lists {', '.join(lists)} (ImageSets/Segmentation) is "
            "to be trained on? Call it train.txt, or --gin_bindings='Recipe.train_split=\"NAME\"'."
        )
    return "all"


def validation_split(root):
    """Return "val" where a folder has such a list, else None."""
    return "val" if "val" in _lists(pathlib.Path(root)) else None


def pictures_source(root, class_names):
    """Return all pictures below a folder, without labels: what inference is run on.

    Args:
      root: the folder; its subfolders are searched too.
      class_names: the K names that the network was trained on, in mask order.

    Returns:
      `data.source.Source` without masks, labels all zero; an id is the path below `root` without
      suffix.

    Raises:
      UserError: no such folder, or no picture in it.
    """
    root = _folder(root, "the input folder")
    files, note = find_pictures(root)
    class_names = tuple(class_names)
    num_classes = len(class_names) - (class_names[0] == "background")
    return file_source(
        name=root.resolve().name,
        split="all",
        class_names=class_names,
        ids=list(files),
        labels=np.zeros([len(files), num_classes], np.float32),
        image_paths=list(files.values()),
        warnings=[note] if note else [],
    )


def _folder(root, name):
    """Return an existing folder as a path."""
    if not root:
        raise UserError(f"{name} is not set; bind it to a folder of images.")
    path = pathlib.Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"{name} = {str(root)!r}: no such folder.")
    return path


def _lists(root):
    """Return {split: path} of the lists of a folder."""
    return {path.stem: path for path in sorted((root / "ImageSets/Segmentation").glob("*.txt"))}


def _split_ids(root, split, names):
    """Return the ids of a split, each checked to have its image."""
    lists = _lists(root)
    splits = list(lists) or ["all"]
    if split not in splits:
        raise UserError(
            f"{root}: no split {split!r}; there is {', '.join(splits)}. A split is a list "
            f"ImageSets/Segmentation/{split}.txt with one image a line."
        )
    if not lists:
        return list(names)
    listed = read_id_list(lists[split])
    ids = [names.find(name) for name in listed]
    missing = [name for name, image_id in zip(listed, ids) if image_id is None]
    if missing:
        raise UserError(
            f"{lists[split]}: no image {missing[0]!r}{_and_more(missing)} in "
            f"{image_folder(root)}{_nearest(missing[0], names)}."
        )
    if len(set(ids)) < len(ids):
        twice = next(name for name, image_id in zip(listed, ids) if ids.count(image_id) > 1)
        raise UserError(f"{lists[split]}: {twice!r} is in the list twice, in two spellings.")
    return ids


def _find_masks(folder, names):
    """Return {picture's id: mask's path}, and warnings of masks that are of no picture."""
    files, others = search(folder, (".png",))
    masks, strangers = {}, []
    for name, path in files.items():
        if (image_id := names.composed(name)) is None:
            strangers.append(name)
        else:
            masks[image_id] = path
    warnings = []
    if others:
        named = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        warnings.append(f"{folder}: pictures passed over ({named}): a mask must be a PNG.")
    if strangers:
        near = names.find(strangers[0]) or names.nearest(strangers[0])
        hint = "a mask has its picture's name, with .png"
        if near is not None:
            hint = f"the nearest picture is {near!r}, whose mask would be {near}.png"
        warnings.append(
            f"{folder}: {len(strangers)} of {len(files)} masks are named as no picture, such as "
            f"{strangers[0] + '.png'!r}; {hint}."
        )
    return masks, warnings


def _masks_elsewhere(root, names):
    """Return a warning of a folder that seems to hold the masks, under another name than theirs."""
    pictures = image_folder(root)
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path != pictures):
        found, _ = search(folder, (".png",))
        count = sum(names.composed(name) is not None for name in found)
        if count and 2 * count >= len(found):
            return [
                f"{folder}: {count} PNG files are named as pictures; if they are masks, call the "
                f"folder {MASK_FOLDER}, which is where masks are read from."
            ]
    return []


def _read_table(path, class_names):
    """Return the rows of image_labels.csv, [] if there is none."""
    return read_label_table(path, class_names) if path.is_file() else []


def _strangers(path, strangers, rows, names, folder):
    """Return a line on rows that are of no picture."""
    number = next(row.number for row in rows if row.image == strangers[0])
    return (
        f"{path}: no image {strangers[0]!r} (row {number}){_and_more(strangers)} in {folder}"
        f"{_nearest(strangers[0], names)}."
    )


def _nearest(name, names):
    suffix = pathlib.PurePath(name).suffix.lower()
    if suffix in OTHER_PICTURES:
        return f"; a {suffix} file is not read: convert it to PNG or JPEG"
    near = names.nearest(name)
    return "" if near is None else f"; the nearest is {near!r}"


def _names_from_file(path):
    """Return the class names of a file, None if there is none."""
    if not path.is_file():
        return None
    names = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    return _checked_names(path, [unicodedata.normalize("NFC", name) for name in names])


def _names_from_table(root, rows):
    """Return background and the labels of a table, sorted."""
    if not rows:
        raise UserError(
            f"{root}: neither {NAMES_FILE} (one class a line, in mask order, background first if "
            f"there is one) nor {LABEL_FILE} with a row is in it."
        )
    labels = set().union(*labels_by_image(rows).values())
    folded = {}
    for name in sorted(labels):
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise UserError(
                f"{root / LABEL_FILE}: the labels {other!r} and {name!r} differ only in capitals; "
                f"write one of them everywhere, or list both in {NAMES_FILE} if they are two."
            )
    return _checked_names(root / LABEL_FILE, ["background", *sorted(labels - {"background"})])


def _checked_names(path, names):
    """Return the names as a tuple, if a network can be trained on them."""
    for name in names:
        check_one_line(name, path)
    if len(set(names)) != len(names) or "background" in names[1:]:
        raise UserError(f"{path}: names must differ, and background must be the first: {names}.")
    if not names or names == ["background"] or len(names) > IGNORE:
        raise UserError(f"{path}: {len(names)} names; need from 1 to {IGNORE}, besides background.")
    return tuple(names)


def _multi_hot(root, labels_of, ids, class_names):
    """Return labels float32 [n, C], after checking every label in the table."""
    foreground = class_names[class_names[0] == "background" :]
    column = {name: i for i, name in enumerate(foreground)}
    labels = np.zeros([len(ids), len(foreground)], np.float32)
    row = {image_id: i for i, image_id in enumerate(ids)}
    for image_id, names in labels_of.items():
        for name in sorted(names):
            if name not in class_names:
                raise UserError(
                    f"{root / LABEL_FILE}: image {image_id!r} has label {name!r}, no class name; "
                    f"known are {', '.join(class_names)} (put ';' between names with spaces)."
                )
            if image_id in row and name in column:
                labels[row[image_id], column[name]] = 1
    return labels


def _and_more(names):
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""

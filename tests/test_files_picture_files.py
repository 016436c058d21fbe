"""Which files are found below a folder, whatever links there are."""

import os

import pytest

from wsss_tf.data.folder import folder_source, pictures_source
from wsss_tf.errors import UserError
from wsss_tf.files.picture_files import SUFFIXES, find_files, find_pictures, search
from wsss_tf.serving import client


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def link(target, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)


def test_a_folder_that_links_to_itself_is_searched_once(tmp_path):
    write(tmp_path, "d/a.jpg", "d/e/b.png")
    link(".", tmp_path / "d/l1")
    link("..", tmp_path / "d/e/up")
    link(tmp_path, tmp_path / "d/e/top")
    assert list(find_files(tmp_path, SUFFIXES)) == ["d/a", "d/e/b"]
    assert list(pictures_source(tmp_path, ["background", "x"]).ids) == ["d/a", "d/e/b"]
    assert list(client.find_pictures(tmp_path)) == ["d/a", "d/e/b"]
    (tmp_path / "image_labels.csv").write_text("image,labels\nd/a,x\nd/e/b,x\n")
    assert folder_source(root=tmp_path).ids == ("d/a", "d/e/b")


def test_links_that_lead_to_each_other_are_no_folders(tmp_path):
    write(tmp_path, "d/a.jpg")
    for one, other in (("x", "y"), ("y", "x"), ("b.jpg", "c"), ("c", "b.jpg")):
        link(other, tmp_path / "d" / one)
    # As a link that leads nowhere: whoever reads the picture says what is wrong with it.
    assert list(find_files(tmp_path, SUFFIXES)) == ["d/a", "d/b"]


def test_folders_inside_keep_their_names_and_linked_ones_outside_are_searched(tmp_path):
    write(tmp_path, "in/z/a.jpg", "out/b.jpg", "out/c/d.jpg")
    link("z", tmp_path / "in/first")  # would be searched before z
    link(tmp_path / "out", tmp_path / "in/y1")
    link(tmp_path / "out", tmp_path / "in/y2")
    link(tmp_path / "out/b.jpg", tmp_path / "in/linked.jpg")
    link(tmp_path / "nowhere", tmp_path / "in/dangling")
    assert list(find_files(tmp_path / "in", SUFFIXES)) == ["linked", "y1/b", "y1/c/d", "z/a"]


def test_a_folder_left_out_is_not_found_through_a_link(tmp_path):
    write(tmp_path, "a.jpg", "SegmentationClass/a.png", "sub/SegmentationClass/c.png")
    link("SegmentationClass", tmp_path / "masks")
    files, note = find_pictures(tmp_path, "SegmentationClass")
    assert (list(files), note) == (["a", "sub/SegmentationClass/c"], "")


def test_what_is_passed_over_is_counted(tmp_path, capsys):
    write(tmp_path, "a.jpg", "b.webp", "c.WEBP", "d.tif", "e/f.bmp", "notes.txt", ".g.gif", "h")
    expected = f"{tmp_path}: 4 files passed over that look like pictures (.webp 2, .bmp 1, .tif 1)"
    files, note = find_pictures(tmp_path)
    assert list(files) == ["a"]
    assert note.startswith(expected)
    assert pictures_source(tmp_path, ["background", "x"]).warnings == (note,)
    (tmp_path / "image_labels.csv").write_text("image,labels\na,x\n")
    assert folder_source(root=tmp_path).warnings == (note,)
    client.find_pictures(tmp_path)
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"warning: {note}\n")
    assert search(tmp_path, (".png",))[1] == {".jpg": 1, ".webp": 2, ".tif": 1, ".bmp": 1}
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"no image .* 4 files passed over .*\.webp 2"):
        find_pictures(tmp_path)

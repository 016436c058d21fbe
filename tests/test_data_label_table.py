"""image_labels.csv: read where it is plain, and else an error that names the row."""

import pytest

from wsss_tf.data.label_table import labels_by_image, read_label_table
from wsss_tf.errors import UserError

PLAIN = {"a.jpg": {"sky", "tree"}, "b.jpg": {"car"}}


def read(path, contents, **how):
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return read_label_table(path, **how)


@pytest.mark.parametrize(
    "contents",
    [
        "image,labels\na.jpg,sky;tree\nb.jpg,car\n",
        "\ufeffimage,labels\r\na.jpg,sky tree\r\nb.jpg,car\r\n",
        "image,labels\ra.jpg,sky tree\rb.jpg,car",
        "image,labels\na.jpg,sky tree\nb.jpg,car\n".encode("utf-16"),
        "image;labels\na.jpg;sky tree\nb.jpg;car\n",
        'image;labels\n"a.jpg";"sky;tree"\nb.jpg;car\n',
        "image\tlabels\na.jpg\tsky tree\nb.jpg\tcar\n",
        "Image,LABELS\na.jpg,sky tree\nb.jpg,car\n",
        "image, labels\n a.jpg , sky tree \n b.jpg, car\n",
        "\nimage,labels,\n\na.jpg,sky tree,\n\nb.jpg,car,,\n,\n,,,\n\n",
        "id,labels,image\n1,sky tree,a.jpg\n2,car,b.jpg\n",
        "image,labels,note\na.jpg,sky tree,fine\nb.jpg,car\n",
        'image,labels\na.jpg,sky\na.jpg,"tree"\nb.jpg,car\n',
    ],
    ids=[
        "plain", "excel", "old_mac", "utf16", "semicolon", "semicolon_quoted", "tab", "capitals",
        "spaces", "blank_rows", "columns_in_other_order", "third_column", "rows_of_one_picture",
    ],
)  # fmt: skip
def test_what_is_plain_is_read(contents, tmp_path):
    assert labels_by_image(read(tmp_path / "t.csv", contents)) == PLAIN


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('b.jpg,"tree', "a quote .* is opened and not closed"),
        ('b.jpg,"tree"car', "',' expected after '\"'"),
        (
            "b.jpg,sky,tree,car",
            r"4 cells, but the first line has 2; .* such as b\.jpg,sky;tree;car",
        ),
        ('b.jpg,"road,sky"', r"a comma in the labels 'road,sky'; .* such as road;sky"),
        ("b.jpg", r"no cell for the labels; for none write b\.jpg,\."),
        (",tree", "labels, but no picture's name before them"),
        ("b.jpg," + "x" * 200_000, r"field larger than field limit \(131072\)"),
    ],
    ids=["unclosed", "behind_quote", "more_cells", "comma", "one_cell", "no_name", "long"],
)
def test_a_row_that_is_not_plain(row, why, tmp_path):
    """Nothing of it goes to its neighbours, and the message is short."""
    with pytest.raises(UserError, match=rf"t\.csv: row 3 \(.*\): .*{why}") as caught:
        read(tmp_path / "t.csv", f'image,labels\na.jpg,sky\n{row}\nc.jpg,"car"\n')
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("image,labels,labels", "the column labels 2 times"),
        ("Image,image,labels", "the column image 2 times"),
        ("a.jpg,sky", "the first line must be image,labels, not 'a.jpg,sky'; then come lines such"),
        ('image,"labels', "the first line must be image,labels"),
    ],
)
def test_a_first_line_that_is_not_plain(head, why, tmp_path):
    with pytest.raises(UserError, match=why):
        read(tmp_path / "t.csv", f"{head}\na.jpg,sky,tree\n")


def test_a_name_with_a_comma_is_read_where_it_is_known(tmp_path):
    rows = read(tmp_path / "t.csv", 'image,labels\na,"road, wet"\n', class_names=["road, wet"])
    assert labels_by_image(rows, ["road, wet"]) == {"a": {"road, wet"}}


@pytest.mark.parametrize("encoding", ["utf-16-le", "latin-1"])
def test_other_encodings(encoding, tmp_path):
    with pytest.raises(UserError, match=r"t\.csv: not a UTF-8 text file"):
        read(tmp_path / "t.csv", "image,labels\na,Käse\n".encode(encoding))

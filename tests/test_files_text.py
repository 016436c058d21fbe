import pytest

from wsss_tf.errors import UserError
from wsss_tf.evaluation.mask_folders import read_class_names
from wsss_tf.files.run_folder import RunFolder


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\x0cb", "a\nb", "b\r", ""])
def test_a_name_that_would_be_two_is_not_written(name, tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(UserError, match=r"class_names\.txt: the class name '.*' is empty or has"):
        run.write_class_names(["background", name])
    assert not run.class_names.exists()


def test_a_list_that_is_not_utf8_is_named(tmp_path):
    run = RunFolder(tmp_path)
    run.class_names.write_bytes("background\nKäse\n".encode("latin-1"))
    for read in (run.read_class_names, lambda: read_class_names(run.class_names)):
        with pytest.raises(UserError, match=r"class_names\.txt: not a UTF-8 text file"):
            read()
    run.class_names.write_text("background\r\nKäse\r\n", encoding="utf-8-sig")
    assert run.read_class_names() == read_class_names(run.class_names) == ("background", "Käse")


def test_a_line_with_two_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("background\na\u2028b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"names\.txt: line 2: the class name 'a\\u2028b'"):
        read_class_names(tmp_path / "names.txt")

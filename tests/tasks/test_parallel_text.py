"""Reading text files, plain or compressed, and two of them side by side."""

import gzip
import re

import pytest

from tasks.parallel_text import read_lines, read_pairs


def write(path, lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return str(path)


def test_lines_are_read_plain_and_compressed(tmp_path):
    lines = ["Ein Mann läuft.", "", "  中文 text  ", "a\u2028b\x0cc", "last"]
    text = "\r\n".join(lines)
    expected = ["Ein Mann läuft.", "", "中文 text", "a\u2028b\x0cc", "last"]
    for compress in (bytes, gzip.compress):
        for end in ("", "\n"):
            path = tmp_path / "lines"
            path.write_bytes(compress((text + end).encode()))
            assert read_lines(path) == expected
    path.write_bytes(b"\xef\xbb\xbfmarked\n")
    assert read_lines(path) == ["marked"]


def test_characters_are_composed(tmp_path):
    assert read_lines(write(tmp_path / "lines", ["la\u0308uft"])) == ["läuft"]


def test_lines_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntw\xf6\nthree\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: byte 3 is not valid UTF-8")):
        read_lines(path)


def test_damaged_and_empty_files_are_refused(tmp_path):
    path = tmp_path / "lines"
    whole = gzip.compress(b"one\ntwo\n" * 500)
    for damaged in (whole[:-10], whole[:30], whole[:20] + b"\x00\x01\x02\x03" + whole[24:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(f"{path} is compressed by gzip, but damaged")):
            read_lines(path)
    for empty in (b"", gzip.compress(b"")):
        path.write_bytes(empty)
        with pytest.raises(ValueError, match=re.escape(f"{path} is empty")):
            read_lines(path)
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "nothing")


def test_files_of_different_lengths_are_refused(tmp_path):
    source, target = write(tmp_path / "a", ["1", "2", "3"]), write(tmp_path / "b", ["1", "2"])
    with pytest.raises(ValueError, match=re.escape(f"{source} has 3 lines, but {target} has 2")):
        read_pairs(source, target)


def test_a_line_without_its_other_half_is_refused(tmp_path):
    full, holed = write(tmp_path / "a", ["1", "2", "3"]), write(tmp_path / "b", ["1", "  ", "3"])
    for source, target in ((full, holed), (holed, full)):
        with pytest.raises(ValueError, match=re.escape(f"{holed}, line 2 is empty, but line 2 of {full} is not")):
            read_pairs(source, target)


def test_lines_empty_on_both_sides_are_left_out_and_counted(tmp_path):
    source, target = write(tmp_path / "a", ["1", "", "3", "\t"]), write(tmp_path / "b", ["x", " ", "z", ""])
    with pytest.warns(UserWarning, match=r"2 of 4 lines are empty in both .*a and .*b, and were left out"):
        assert read_pairs(source, target) == [("1", "x"), ("3", "z")]
    nothing = write(tmp_path / "c", ["", ""])
    with pytest.raises(ValueError, match="hold empty lines only"):
        read_pairs(nothing, nothing)

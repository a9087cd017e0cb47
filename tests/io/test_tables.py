import csv

import pytest

from tomostain.io.tables import read_table, write_table


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    return tmp_path / "t.csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_of_spreadsheets_are_read_alike(tmp_path, separator):
    text = "a,b\n1,x y\n\n2, z\n".replace(",", separator)
    columns, rows = read_table(table(tmp_path, text))
    assert columns == ["a", "b"]
    assert rows == [(2, {"a": "1", "b": "x y"}), (4, {"a": "2", "b": "z"})]


def test_a_comma_in_a_table_of_semicolons_belongs_to_its_value(tmp_path):
    assert read_table(table(tmp_path, 'a;b\n"1,5";2,5\n'))[1] == [(2, {"a": "1,5", "b": "2,5"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_umlauts_are_read_in_the_encodings_of_spreadsheets(tmp_path, encoding):
    assert read_table(table(tmp_path, "größe\nfünf\n", encoding)) == (["größe"], [(2, {"größe": "fünf"})])


def test_a_value_of_any_length_is_read(tmp_path):
    limit = csv.field_size_limit()
    assert read_table(table(tmp_path, f"a\n{'x' * 200_000}\n"))[1][0][1]["a"] == "x" * 200_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "t.csv is empty"),
        ("a,a\n1,2\n", "has the column 'a' twice"),
        ("a,b\n1,2,3\n", "line 2 has more values than the 2 columns"),
        ('a,b\n1,"2\n', "line 2: unexpected end"),
        ("a\0b\n", "binary"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(tmp_path, text, fault):
    with pytest.raises(ValueError, match=fault):
        read_table(table(tmp_path, text))


def test_a_missing_value_is_empty_and_a_comma_at_the_end_is_no_column(tmp_path):
    assert read_table(table(tmp_path, "a,b,\n1\n2,3,\n")) == (
        ["a", "b"],
        [(2, {"a": "1", "b": ""}), (3, {"a": "2", "b": "3"})],
    )


@pytest.mark.parametrize("cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "=cmd|' /C calc'!A0", "'=1"])
def test_no_spreadsheet_takes_a_written_text_for_a_formula(tmp_path, cell):
    path = write_table(tmp_path / "t.csv", ["name", "ssim"], [[cell, -0.25], ["S01", "-1e-3"]])
    lines = path.read_text().splitlines()
    assert not lines[1].lstrip('"').startswith(("=", "+", "-", "@"))
    assert lines[1].endswith(",-0.25")
    assert lines[2] == "S01,-1e-3"
    assert read_table(path)[1][0][1]["name"] == cell

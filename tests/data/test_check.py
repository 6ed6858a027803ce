"""`check`: the report, faults and warnings of a folder."""

import pytest

from m3col.data.checks.check_folder import check

from .builders import edit, write_folder


def test_reports_shapes_classes_and_a_missing_modality(shared_data):
    report = check(shared_data / "tcga_breast")
    assert report.ok and report.faults == ()
    assert report.columns == ("file", "modality", "split", "samples", "features", "constant", "with missing")
    assert ("3_tr.csv", "protein", "train", "150", "142", "0", "0") in report.rows and len(report.rows) == 5
    assert report.class_columns == ("class", "train", "test")
    assert report.class_rows == (
        ("0 (Basal)", "45", "21"),
        ("1 (Her2)", "30", "14"),
        ("2 (LumA)", "75", "35"),
    )
    assert len(report.warnings) == 1 and "modality 'protein' is missing from test" in report.warnings[0]


def test_finds_the_known_duplicates(shared_data):
    report = check(shared_data / "handwritten")
    assert [w for w in report.warnings if "equal" in w] == [
        "handwritten: 6 pairs of samples within train are equal in every value (train row 95 = train row 280)"
    ]
    assert check(shared_data / "rosmap").warnings == ()


def test_finds_duplicates_across_splits_constant_and_missing_values(tmp_path):
    folder = write_folder(tmp_path)
    for k in (1, 2):
        row = (folder / f"{k}_tr.csv").read_text().splitlines()[4]
        edit(folder / f"{k}_te.csv", row=2, to=row)
    lines = (folder / "1_tr.csv").read_text().splitlines()
    constant = [",".join(["0.5", *line.split(",")[1:]]) for line in lines]
    constant[4] = lines[4]
    (folder / "1_tr.csv").write_text("\n".join(constant) + "\n")
    edit(folder / "1_tr.csv", row=5, column=1, to="0.5")
    edit(folder / "1_te.csv", row=2, column=1, to="0.5")
    edit(folder / "2_te.csv", row=1, column=3, to="NA")
    report = check(folder)
    text = "\n".join(report.warnings)
    assert report.ok
    assert "1_tr.csv: column 1 is constant" in text
    assert "2_te.csv: column 3 is missing in some rows" in text
    equal = "1 pairs of samples across train and test are equal in every value (train row 5 = test row 2; 1 of the 6"
    assert equal in text
    assert ("2_te.csv", "modality_2", "test", "6", "5", "0", "1") in report.rows


def test_faults_do_not_hide_what_could_be_read(tmp_path):
    folder = write_folder(tmp_path, modalities=3)
    edit(folder / "2_tr.csv", row=1, column=1, to="x")
    (folder / "3_tr.csv").write_text("1,2\n")
    (folder / "1_featname.csv").write_text("a\na\nb\nc\n")
    report = check(folder)
    assert not report.ok and len(report.faults) == 4
    assert ("1_tr.csv", "modality_1", "train", "12", "4", "0", "0") in report.rows
    assert any("feature names that occur more than once: 'a' (2 times)" in line for line in report.faults)


def test_a_bundled_data_set_has_no_folder_unless_there_is_one(tmp_path):
    for name in ("digit_sums", "trifeatures"):
        (line,) = check(tmp_path / name).faults
        assert line == f"{tmp_path / name}: this data set is bundled or drawn; it has no folder, and nothing to check"
    assert check(write_folder(tmp_path / "digits")).ok
    assert check(tmp_path / "rosmap").faults == (f"{tmp_path / 'rosmap'}: is not a folder",)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_data_is_a_fault_and_not_an_exception(tmp_path, name):
    (tmp_path / "empty").mkdir()
    report = check(tmp_path / name)
    assert not report.ok and len(report.faults) == 1 and report.rows == ()


def test_a_path_that_no_file_system_takes_is_a_fault_and_not_an_exception(tmp_path):
    (line,) = check(tmp_path / ("a" * 300)).faults
    assert line.endswith("is not a folder")

"""Names of rows and studies become folders: on every file system, one for each, and none that a command mistakes."""

import pytest

from m3col.errors import InputError
from tune.config import loading
from tune.results import formatting
from tune.study import directory, run_spec
from tune.study.record import StudyFolder

SPACE = {"objective.beta": {"low": 0.01, "high": 1.0}}


def rows(*names: str) -> list[str]:
    """The faults of a search with rows of these names."""
    wanted = {name: {"train.epochs": 3} for name in names}
    return loading.parse({"space": SPACE, "final": {"rows": wanted}})[1]


@pytest.mark.parametrize(
    "name", ["no mixing", "a/b", "../x", "训练", "β = 0", "-x", ".hidden", "a|b", "x" * 255, "con"]
)
def test_any_other_name_of_a_row_works(name):
    assert rows(name) == []
    (study,) = loading.load({"space": SPACE, "final": {"rows": {name: {"train.epochs": 3}}}})
    assert list(study.rows) == [name]
    assert list(loading.study_from_dict(study.to_dict()).rows) == [name]


def test_only_rows_of_the_studys_own_task_are_reserved():
    assert rows("mean") == [] and rows("ridge x") == []  # those of numbers
    assert rows("majority_vote") == [] and rows("logistics") == []  # the first word is what counts
    for name in ("mean", "ridge x"):
        with pytest.raises(InputError, match="is reserved for a row"):
            loading.load({"overrides": {"task": "regression"}, "space": SPACE, "final": {"rows": {name: {}}}})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["winner"], "is reserved for a row"),
        ([" winner"], "is reserved for a row"),
        (["Winner"], "is reserved for a row"),
        (["DEFAULT "], "is reserved for a row"),
        (["logistic rna"], "is reserved for a row"),
        (["a b", "a/b"], "needs the same folder (a_b) as the row 'a b'"),
        (["Plain", "plain"], "needs the same folder (plain) as the row 'Plain'"),
        (["x" * 256], "256 bytes, and file systems take 255"),
        (["训" * 86], "258 bytes"),
        ([""], "a row needs a name"),
        (["a\nb"], "must be printable"),
    ],
)
def test_a_row_that_cannot_have_a_folder_of_its_own_is_refused(names, words):
    (line,) = rows(*names)
    assert words in line and "final.rows." in line and line.isprintable(), line


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("digits", "digits"),
        ("my search (1)", "my_search__1_"),
        ("搜索", "搜索"),
        ("-x", "x"),
        (".hidden", "hidden"),
        ("--", "study"),
        ("digits-single:CpG (450k)", "digits-single-CpG__450k_"),
        ("train", "train"),
    ],
)
def test_a_study_is_named_after_its_file(title, name):
    assert run_spec.study_name(title) == name


@pytest.mark.parametrize("title", ["x" * 400, "训" * 100, "x" * 201])
def test_a_long_name_is_cut_and_stays_its_own(title):
    name = run_spec.study_name(title)
    assert len(name.encode()) <= 200 and name != run_spec.study_name(f"{title}y") and name == run_spec.study_name(title)
    assert run_spec.study_name("x" * 200) == "x" * 200


@pytest.mark.parametrize("stem", ["my search (1)", "搜索", "x" * 245, "train", "auto", "-x", "a.b"])
def test_a_search_from_a_file_of_any_name_gets_a_folder(tmp_path, stem):
    path = tmp_path / f"{stem}.yaml"
    path.write_text("base: digits\nspace: {objective.beta: {low: 0.01, high: 1.0}}\n")
    (study,) = loading.load(path)
    name = directory.new_name(tmp_path / "runs", None, study)
    folder = StudyFolder(tmp_path / "runs" / name)
    folder.path.mkdir(parents=True)
    folder.lock()
    folder.unlock()
    assert name[0] not in "-." and name.endswith("-1") and name not in ("train", "auto")


@pytest.mark.parametrize("name", ["x" * 201, "x" * 300, "a b", "-x", "训练", "train"])
def test_a_name_that_is_asked_for_must_be_a_folder(tmp_path, name):
    (study,) = loading.load({"space": SPACE})
    with pytest.raises(InputError) as caught:
        directory.new_name(tmp_path, name, study)
    (line,) = caught.value.faults
    assert line.startswith("--name")


@pytest.mark.parametrize("name", ["x" * 300, "a\nb", "", "..", "训练"])
def test_a_study_that_is_not_there_is_one_line(tmp_path, name):
    with pytest.raises(InputError, match="not found"):
        directory.find(tmp_path, name)


@pytest.mark.parametrize(
    "lists",
    [
        {"methods": ["single:a/b", "single:a b"]},
        {"methods": ["m3col", "m3col"]},
        {"datasets": ["digits", "digits"]},
        {"methods": ["single:A", "single:a"]},
        {"datasets": ["digits", "digits"], "methods": ["m3col", "concat"]},
    ],
)
def test_two_studies_of_one_name_are_refused(lists):
    faults = loading.parse({"space": {"train.learning_rate": {"low": 1e-4, "high": 0.1}}, **lists})[1]
    assert faults and all("2 studies called" in line for line in faults), faults


def test_a_line_in_a_name_does_not_end_its_cell():
    assert formatting.grid({"": ["a|b"], "x": ["1"]}).splitlines()[-1] == "| a\\|b | 1 |"

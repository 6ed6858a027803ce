"""Files of MultiBench become folders that can be trained on. Nothing of a pickle is called."""

import pickle
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest

import m3col
from jobs import cli
from m3col.data import loading
from m3col.data.checks.check_folder import check
from m3col.data.formats.csv_columns import Layout
from m3col.data.multibench import mimic, opcodes
from m3col.data.multibench.convert import convert
from tests.data import multibench_files

# As Python 2 wrote an array [2] of float64 with protocol 2: bytes as byte strings, NumPy 1's module names.
PYTHON_2 = (
    b"\x80\x02}q\x01U\x01aq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05U\x01b"
    b"\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02f8q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<NNNJ\xff\xff"
    b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10" + struct.pack("<2d", 1.5, -2.0) + b"tbs."
)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.array(["ab", "c"]),
        np.zeros((0, 4)),
        np.ones((1, 1)),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_an_array_is_read_as_it_was_written(array, protocol, tmp_path):
    value = opcodes.read(
        multibench_files.write({"x": [array, array, array[..., :1]]}, tmp_path / "f", protocol=protocol)
    )
    first, again, part = (described.numpy() for described in value["x"])
    assert np.array_equal(first, array) and first.dtype == array.dtype and np.array_equal(first, again)
    assert np.array_equal(part, array[..., :1])


@pytest.mark.parametrize("protocol", range(6))
def test_other_values_are_read_as_they_were_written(protocol, tmp_path):
    value = {"a": [1, -5, 300, 70_000, 2**40, -(2**70), 1.5, None, True, False, (), ("x",), (1, 2, 3, 4)],
             "é": {"n": np.float64(2.5), "i": np.int64(3)}, "b": b"\xff\x00", "e": b"", 3: "ü\n'"}  # fmt: skip
    assert opcodes.read(multibench_files.write(value, tmp_path / "f", protocol=protocol)) == value


def test_a_file_of_python_2_is_read(tmp_path):
    (tmp_path / "f").write_bytes(PYTHON_2)
    assert pickle.loads(PYTHON_2, encoding="latin1")["a"].tolist() == [1.5, -2.0]
    ((_, array),) = opcodes.read(tmp_path / "f").items()
    assert array.numpy().tolist() == [1.5, -2.0]


class Call:
    def __init__(self, function, *arguments):
        self._made = function, arguments

    def __reduce__(self):
        return self._made


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (exec, ("raise SystemExit",), "exec"),
        (Path.touch, (Path("exploded"),), "Path|getattr"),
        (np.load, ("x",), "load"),
    ],
)
def test_a_call_is_refused_with_its_name(function, arguments, named, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = multibench_files.write({"train": Call(function, *arguments)}, tmp_path / "f.pkl", protocol=protocol)
    with pytest.raises(m3col.InputError, match=f"f.pkl: names '[^']*({named})[^']*'.*nothing was called"):
        opcodes.read(path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x80\x04N", "ends too early"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "ends too early"),
        (b"B\xff\xff\xff\xff.", "ends too early"),
        (b"T\xff\xff\xff\xff.", "ends too early"),
        (b"e.", "is damaged: a list has no start"),
        (b"0.", "is damaged: a value is missing"),
        (b"h\x05.", "refers to value 5"),
        (b"I12x\n.", "an integer that is none"),
        (b"\x8b\xff\x00\x00\x00" + b"\x01" * 300, "an integer of 255 bytes"),
        (b"cos\nsystem\nR.", "names 'os.system'"),
        (b"P1\n.", "outside of the file"),
        (b"\x98.", "bytes outside of the file"),
        (b"]N)R.", "calls something"),
        (b"]Nb.", "sets the state of something that is no array"),
        (b"}]Ns.", "a dict with a key"),
        (b"\xff.", "unknown code 255"),
    ],
)
def test_a_damaged_file_is_refused_with_its_fault(content, reason, tmp_path):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(m3col.InputError, match=reason) as caught:
        opcodes.read(tmp_path / "f")
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([1, "a"], dtype=object), "has Python objects"),
        (np.zeros(2, dtype=[("a", "f8")]), "records"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "is not read"),
    ],
)
def test_an_array_of_something_else_is_refused(array, reason, tmp_path):
    with pytest.raises((m3col.InputError, ValueError), match=reason):
        opcodes.read(multibench_files.write({"x": array}, tmp_path / "f"))["x"].numpy()


def test_a_shape_that_does_not_fit_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"is damaged: \[3\] of float64 are 24 bytes, not 16"):
        described = opcodes._Reader(PYTHON_2.replace(b"K\x02\x85", b"K\x03\x85")).value()
        next(iter(described.values())).numpy()


def test_memory_is_bounded_however_often_a_text_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(opcodes, "_LEAST_COPIED", 10_000)
    text = b"\x8c\x04\x95X" + b"X" + struct.pack("<I", 5000) + b"x" * 5000 + b"q\x00"
    call = b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R0"
    (tmp_path / "f").write_bytes(text.replace(b"\x8c\x04\x95X", b"") + call * 100 + b".")
    with pytest.raises(m3col.InputError, match="many times its own size"):
        opcodes.read(tmp_path / "f")


def test_a_small_file_of_many_parts_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(opcodes, "_MOST_OPCODES", 1000)
    monkeypatch.setattr(opcodes, "_DEEPEST_STACK", 500)
    for content, reason in (
        (b"]0" * 2000 + b".", "more than 1,000 parts"),
        (b"]" * 900 + b".", "more than 500 values"),
    ):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(m3col.InputError, match=reason):
            opcodes.read(tmp_path / "f")


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A file with some bytes changed, left out, repeated or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed))
        action = rng.randrange(5)
        if action == 0:
            changed[at] = rng.randrange(256)
        elif action == 1:
            changed[at] ^= 1 << rng.randrange(8)
        elif action == 2:
            del changed[at : at + rng.randint(1, 50)]
        elif action == 3:
            changed[at:at] = changed[max(0, at - rng.randint(1, 30)) : at]
        else:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        changed = changed or bytearray(b".")
    return bytes(changed[: rng.randrange(len(changed)) + 1] if rng.random() < 0.2 else changed)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_damaged_file_is_converted_or_refused_in_words(protocol, tmp_path, count=150):
    """10,000 files were tried with benchmarks/fuzz_multibench.py."""
    rng = random.Random(protocol)
    files = [
        pickle.dumps(value, protocol=protocol)
        for value in (multibench_files.affect(rows=9, steps=2), multibench_files.mimic(rows=12))
    ]
    refused = 0
    for number in range(count):
        path = tmp_path / "damaged.pkl"
        path.write_bytes(damaged(rng, files[number % 2]))
        began = time.monotonic()
        try:
            convert(path, tmp_path / f"{number}")
        except m3col.InputError as error:
            refused += 1
            assert all(line.startswith(str(path)) for line in error.faults)
        assert time.monotonic() - began < 5
    assert refused > count / 3


@pytest.mark.parametrize("kind", ["mosi", "ur_funny", "mustard"])
def test_affect_files_become_sequences_without_padding(kind, tmp_path):
    value = multibench_files.affect(kind)
    folder = tmp_path / kind
    converted = convert(multibench_files.write(value, tmp_path / "file.pkl"), folder)
    assert converted.name == kind
    dataset = loading.load(kind, data_dir=tmp_path, modalities=["vision", "audio", "text"])
    for split, theirs in (("train", "train"), ("validation", "valid"), ("test", "test")):
        mine = dataset.splits[split]
        source = value[theirs]
        # The slow twin: the published rules, row by row.
        rows = [row for row in range(len(source["labels"])) if source["text"][row].any()]
        assert len(rows) == len(source["labels"]) - 1 == len(mine)
        assert mine.labels.tolist() == [int(source["labels"][row, 0, 0] > 0) for row in rows]
        for at, row in enumerate(rows):
            start = next(step for step in range(6) if source["text"][row][step].any())
            for name in ("vision", "audio", "text"):
                expected = np.array(source[name][row][start:], dtype=np.float32)
                expected[np.isneginf(expected)] = 0
                assert np.array_equal(mine.inputs[name].sequence(at), expected)
    text = "\n".join(dataset.warnings)
    assert "3 samples without any text were left out" in text and "padding in front of the first word" in text
    assert "values of -inf in the audio" in text
    assert ("neutral samples (sentiment 0)" in text) == (kind == "mosi")


def test_mosi_has_three_kinds_of_labels(tmp_path):
    value = multibench_files.affect("mosi")
    convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "mosi")
    numbers = value["train"]["labels"].ravel()[1:]
    for layout, expected in (
        (Layout(label="not_negative"), (numbers >= 0).astype(int)),
        (Layout(label=("sentiment",), form="number"), numbers[:, None]),
    ):
        assert np.array_equal(loading.load("mosi", data_dir=tmp_path, layout=layout).train.labels, expected)
    assert loading.load("mosi", data_dir=tmp_path).modalities == ("text", "vision")  # published: without audio


def test_mimic_has_the_published_split(tmp_path):
    value = multibench_files.mimic()
    convert(multibench_files.write(value, tmp_path / "im.pk"), tmp_path / "mimic")
    dataset = loading.load("mimic", data_dir=tmp_path, layout=Layout(label="icd9_7"))
    # The slow twin: rows as the published loader shuffles them.
    rows = [*zip(value["adm_features_all"], value["ep_tdata"], value["y_icd9"][:, 7], strict=True)]
    random.seed(10)
    random.shuffle(rows)
    parts = {"validation": rows[:4], "test": rows[4:8], "train": rows[8:]}
    for split, expected in parts.items():
        mine = dataset.splits[split]
        assert mine.labels.tolist() == [int(label) for *_, label in expected]
        for at, (static, series, _) in enumerate(expected):
            cleaned = np.where(np.isfinite(series), series, 0).astype(np.float32)
            assert np.array_equal(mine.inputs["series"].sequence(at), cleaned)
            assert np.asarray(mine.inputs["static"])[at] == pytest.approx(static)
    assert "2 values that were NaN or infinite became 0" in "\n".join(dataset.warnings)
    assert [len(parts[split]) for split in ("validation", "test", "train")] == [4, 4, 32]
    assert len(mimic.published_order(32_616)[: int(0.1 * 32_616)]) == 3_261


def test_every_fault_of_the_arrays_is_reported_at_once(tmp_path):
    value = multibench_files.affect("mosi")
    value["train"]["audio"] = value["train"]["audio"][:-1]
    del value["valid"]["vision"]
    value["test"]["labels"][0] = np.nan
    with pytest.raises(m3col.InputError) as caught:
        convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "out")
    text = str(caught.value)
    assert "split 'train', 'audio' must have the shape" in text and "split 'valid' has no 'vision'" in text
    assert "split 'test', 'labels' has values that are not finite" in text and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v["train"].update(labels=np.array(1.0)), "split 'train', 'labels' must have 1 or 2 or 3 dimensions"),
        (lambda v: v["train"].update(text=np.ones(4)), "split 'train', 'text' must have 3 dimensions"),
        (lambda v: v["valid"]["text"].__setitem__((2, 5, 0), np.nan), "split 'valid', 'text' has values that are NaN"),
        (lambda v: v["test"]["labels"].__setitem__((0, 0, 0), 7), "'labels' must be from -3 to 3"),
        (
            lambda v: [part.update(vision=part["vision"][..., :9]) for part in v.values()],
            "have 9 and 5 features; known",
        ),
        (lambda v: v["train"].update(id={"a": 1}), "split 'train', 'id' is neither a list nor an array"),
        (lambda v: v["train"].update(id=np.array(["x" * 300] * 12)), "split 'train', 'id' has a name or an id of 300"),
    ],
)
def test_arrays_of_another_structure_are_faults_in_words(change, reason, tmp_path):
    value = multibench_files.affect("mosi")
    change(value)
    with pytest.raises(m3col.InputError, match=reason):
        convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "out")


def test_ids_are_printable_whatever_the_file_has(tmp_path):
    value = multibench_files.affect("mosi")
    value["train"]["id"] = ["unused", "a\0b", "\ud800", *[[1, "c"]] * 9]
    convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "mosi")
    assert check(tmp_path / "mosi").faults == ()
    rows = (tmp_path / "mosi" / "train.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:4]] == ["a?b", "?", "1 c"]


def test_mimic_needs_the_column_of_the_published_task(tmp_path):
    value = multibench_files.mimic()
    value["y_icd9"] = value["y_icd9"][:, :5]
    with pytest.raises(m3col.InputError, match="'y_icd9' must have at least 8 columns, but has 5"):
        convert(multibench_files.write(value, tmp_path / "im.pk"), tmp_path / "out")


def test_a_converted_folder_is_checked_by_its_own_labels_and_not_read_as_another_set(tmp_path):
    convert(multibench_files.write(multibench_files.mimic(), tmp_path / "im.pk"), tmp_path / "mimic")
    assert check(tmp_path / "mimic").faults == ()
    (tmp_path / "mimic").rename(tmp_path / "mosi")
    with pytest.raises(m3col.InputError, match=r"was converted from mimic, not from mosi; use data\.name: mimic"):
        loading.load("mosi", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\x1f\x8b\x08", "a gzip file"), (b"PK\3\4", "a zip file"), (b"<!DOCTYPE", "a web page"),
                       (b"version https://git-lfs.github.com/spec/v1", "a pointer of git-lfs")]
)  # fmt: skip
def test_another_kind_of_file_is_named(start, kind, tmp_path):
    (tmp_path / "f.pkl").write_bytes(start + b"." * 50)
    with pytest.raises(m3col.InputError, match=f"is {kind}"):
        opcodes.read(tmp_path / "f.pkl")


def test_ids_that_refer_to_arrays_cost_nothing(tmp_path):
    value = multibench_files.affect("mosi")
    ids = np.empty((12,), dtype=object)
    ids[:] = [np.zeros(200_000)] * 12
    value["train"]["id"] = ids
    began = time.monotonic()
    convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "out")
    assert time.monotonic() - began < 2 and ",?," in (tmp_path / "out" / "train.csv").read_text()


def test_ids_that_do_not_fit_their_shape_are_a_fault(tmp_path):
    value = multibench_files.affect("mosi")
    value["valid"]["id"] = value["valid"]["id"][:-1]
    with pytest.raises(m3col.InputError, match="split 'valid', 'id' has 9 rows for 10 samples"):
        convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "out")
    content = pickle.dumps(multibench_files.affect("mosi"), protocol=2)
    (tmp_path / "f.pkl").write_bytes(content.replace(b"K\x0cK\x02\x86", b"K\x0cK\x03\x86", 1))
    with pytest.raises(m3col.InputError, match=r"is damaged: the shape \[12, 3\] does not fit 24 objects"):
        convert(tmp_path / "f.pkl", tmp_path / "out")


def test_numbers_beyond_float32_are_a_fault(tmp_path):
    affect, mimic_value = multibench_files.affect("mosi"), multibench_files.mimic()
    affect["train"]["vision"][3, -1, 0], mimic_value["ep_tdata"][0, 0, 0] = 1e40, -1e40
    for value, place in ((affect, "split 'train', 'vision'"), (mimic_value, "'ep_tdata'")):
        with pytest.raises(m3col.InputError, match=f"{place} has .*(beyond float32|infinite)"):
            convert(multibench_files.write(value, tmp_path / "f.pkl"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["f.pkl"]


def test_another_pickle_and_an_existing_folder_are_refused(tmp_path):
    path = multibench_files.write({"x": 1}, tmp_path / "f.pkl")
    with pytest.raises(m3col.InputError, match=r"must be a dict of train, valid and test .* but is a dict of x"):
        convert(path, tmp_path / "out")
    with pytest.raises(m3col.InputError, match="exists already; name a new folder"):
        convert(path, tmp_path)


def test_the_command_converts_and_check_repeats_the_remarks(tmp_path, capsys):
    path = multibench_files.write(multibench_files.affect("mustard"), tmp_path / "sarcasm.pkl")
    assert cli.main(["data", "convert", "multibench", str(path), "--to", str(tmp_path / "mustard")]) == 0
    assert "mustard is in" in capsys.readouterr().out
    report = check(tmp_path / "mustard")
    assert not report.faults and any("samples without any text" in line for line in report.warnings)
    assert cli.main(["data", "convert", "multibench", str(path), "--to", str(tmp_path / "mustard")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_folder_with_the_pickle_names_the_command(tmp_path):
    (tmp_path / "mustard").mkdir()
    multibench_files.write({}, tmp_path / "mustard" / "sarcasm.pkl")
    with pytest.raises(m3col.InputError, match=r"m3col data convert multibench .*sarcasm\.pkl --to"):
        loading.load("mustard", data_dir=tmp_path)

"""Images and texts as lists in Python: trained on, predicted, and refused with their rows."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import m3col
from m3col.data import loading
from m3col.data.arrays import from_arrays
from m3col.data.checks.check_folder import check
from m3col.data.media_values import kind_of_items

N = 12
LABELS = np.arange(N) % 2
TEXTS = [f"a {'cat' if label else 'dog'} number {row}" for row, label in enumerate(LABELS)]


def contents() -> list[bytes]:
    result = []
    for row, label in enumerate(LABELS):
        pixels = np.full((16, 16, 3), 200 * label + row, dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        result.append(buffer.getvalue())
    return result


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a.jpg", "b.PNG"], "image"),
        ([Path("a"), Path("b")], "image"),
        ([Path("a"), "b"], "image"),
        ([b"x"], "image"),
        (pd.Series(["a", "b", "c.jpg"]), "text"),
        (np.array(["a", "b"]), "text"),
        ([1.0, 2.0], None),
        (["a", 1], None),
        (["1", "2.5"], None),
        (["a", float("nan"), None], "text"),
        (["a.jpg", "b", "c.png"], "image"),
        ([Image.new("RGB", (2, 2))], "image"),
        ([np.zeros((2, 2, 3), np.uint8)], "image"),
        (np.zeros((4, 2, 2, 3), np.uint8), "image"),
        ([np.zeros((2, 3))], None),
        (pd.DataFrame({"a": ["x"]}), None),
        ("text", None),
        ([], None),
    ],
)
def test_the_kind_follows_from_the_items(values, kind):
    assert kind_of_items(values) == kind


def test_images_and_texts_have_the_rows_of_the_other_modalities(tmp_path):
    order = np.random.default_rng(0).permutation(N)
    ids = [f"s{row}" for row in range(N)]
    table = pd.DataFrame({"x": np.arange(N, dtype=float)}, index=ids)
    texts = pd.Series(TEXTS, index=ids).iloc[order]
    paths = []
    for row, content in enumerate(contents()):
        (tmp_path / f"{row}.png").write_bytes(content)
        paths.append(tmp_path / f"{row}.png")
    dataset = from_arrays({"table": table, "text": texts, "image": paths}, pd.Series(LABELS, index=ids))
    assert dataset.kinds == {"table": "numeric", "text": "text", "image": "image"}
    assert dataset.train.inputs["text"].values.tolist() == TEXTS
    assert dataset.train.inputs["image"].values.tolist() == [str(path) for path in paths]


def test_a_training_on_lists_predicts_lists(tmp_path):
    data = {"image": contents(), "text": TEXTS}
    run = m3col.train(
        {"method": "concat"},
        data={"train": (data, LABELS), "test": (data, LABELS)},
        overrides={
            "train.epochs": 1, "train.batch_size": 6, "validation.kind": "none", "data.image.size": 16,
            "data.text.tokenizer": "fitted", "data.text.vocabulary": 100, "data.text.max_length": 8,
            "model.embedding_dim": 8, "model.classifier_dim": 8, "model.image.name": "vit_tiny_patch16_224",
            "model.image.pretrained": False, "model.text.name": "bert", "model.text.pretrained": False,
            "model.image.options": {"patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2},
            "model.text.options": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                                   "intermediate_size": 16},
        },
        runs=tmp_path, tracking_uri="none",
    )  # fmt: skip
    assert run.predictor.predict_proba({"image": contents()[:3], "text": TEXTS[:3]}).shape == (3, 2)
    assert "test/accuracy" in run.metrics


def test_arrays_and_images_of_pillow_are_read_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 255, (N, 5, 4, 3), dtype=np.uint8)
    for values in (pixels, [*pixels], [Image.fromarray(image) for image in pixels]):
        column = from_arrays({"image": values}, LABELS).train.inputs["image"]
        read = [np.asarray(Image.open(io.BytesIO(content))) for content in column.values]
        assert np.array_equal(read, pixels)
    with pytest.raises(m3col.InputError, match=r"row 1: an array must be uint8 \[height, width, 3\], but is float64"):
        from_arrays({"image": pixels / 255}, LABELS)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["1", "2"] * 6, "has numbers written as texts; hand over a table of numbers"),
        (pd.DataFrame({"c": TEXTS}), "is a table with one column of texts; hand over the column: frame['c']"),
        (np.zeros((N, 4, 4), np.uint8), "give grey images a last axis of 1"),
        ([np.zeros((4, 4), np.uint8)] * N, "give grey images a last axis of 1"),
        (np.zeros((N, 3, 8, 8), np.uint8), "move the channels to the end"),
        (pd.Series([*TEXTS[:-1], pd.NA], dtype="string"), "row 12: must be one of the texts"),
    ],
)
def test_what_looks_like_images_or_texts_is_refused_with_what_to_do(values, line):
    with pytest.raises(m3col.InputError) as caught:
        from_arrays({"x": values}, LABELS)
    assert line in str(caught.value)


def test_images_of_other_modes_become_rgb():
    column = from_arrays({"x": [Image.new("CMYK", (3, 2))] * N}, LABELS).train.inputs["x"]
    assert Image.open(io.BytesIO(column.values[0])).mode == "RGB"


def test_unusable_items_are_faults_with_their_rows(tmp_path):
    with pytest.raises(m3col.InputError) as caught:
        from_arrays({"text": ["a", "", *TEXTS[2:]], "image": [tmp_path / "none.png"] * N}, LABELS)
    text = str(caught.value)
    assert "train, modality 'text': row 2" in text and "train, modality 'image': row 1" in text
    with pytest.raises(m3col.InputError, match="test, modality 'text': has numbers, but training has texts"):
        from_arrays({"text": TEXTS}, LABELS, test=({"text": np.ones((N, 1))}, LABELS))


def test_a_folder_of_sequences_may_have_images(tmp_path):
    (tmp_path / "pictures").mkdir()
    for row, content in enumerate(contents()):
        (tmp_path / "pictures" / f"{row}").write_bytes(content)  # without an ending
    (tmp_path / "train.csv").write_text("id,label\n" + "".join(f"s{row},{label}\n" for row, label in enumerate(LABELS)))
    (tmp_path / "photo.csv").write_text(
        "id,image\n" + "".join(f"s{row},pictures/{row}\n" for row in reversed(range(N)))
    )
    (tmp_path / "move.csv").write_text("id,time,x\n" + "".join(f"s{row},0,{row}\n" for row in range(N)))
    dataset = loading.load("sequences", data_dir=tmp_path)
    assert dataset.kinds == {"move": "sequence", "photo": "image"}
    assert [Path(path).name for path in dataset.train.inputs["photo"].values] == [str(row) for row in range(N)]
    report = check(tmp_path)
    assert not report.faults and ("photo.csv", "train", str(N), "-", "-", "-", "-", "-") in report.rows
    (tmp_path / "photo.csv").write_text("id,image\ns0,../x.png\ns1,pictures/99\n")
    text = "\n".join(check(tmp_path).faults)
    assert "row 1: image '../x.png'" in text and "row 2: image 'pictures/99'" in text

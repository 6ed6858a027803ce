"""One typed config: what loads, what joins, and that every fault is told with who gave the key."""

import pytest

from m3col.config import loading, yaml_files
from m3col.config.keys import flatten
from m3col.config.loading import load, with_overrides
from m3col.errors import InputError, nearest
from m3col.methods import registry
from m3col.methods.m3col import last_mixup_epoch


def faults(raw, **overrides) -> list[str]:
    with pytest.raises(InputError) as caught:
        loading.load(raw, overrides={key.replace("__", "."): value for key, value in overrides.items()})
    return list(caught.value.faults)


@pytest.mark.parametrize("path", sorted((loading.folder() / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_survives_a_round_trip(path):
    run = loading.load(path)
    assert loading.load(yaml_files.parse(run.to_yaml())) == run == loading.load(path.stem)
    assert path.read_text(encoding="utf-8").startswith(f"# m3col train {path.stem}")


def test_a_config_is_frozen_and_overrides_make_a_new_one():
    run = load({})
    with pytest.raises(Exception, match="frozen"):
        run.method = "concat"
    changed = with_overrides(run, {"objective.beta": 0.7, "train.epochs": 3})
    assert (changed.objective.beta, changed.train.epochs, run.objective.beta) == (0.7, 3, 0.1)


@pytest.mark.parametrize("method", registry.names())
def test_a_new_method_drops_the_keys_that_it_does_not_have(method):
    more = {"data.modalities": ["pixels"]} if registry.find(method).one_modality else {}
    run = with_overrides(load({}), {"method": method, **more})
    stored = {path for path, _ in flatten(run.to_dict())}
    assert not stored & registry.ignored_keys(method)
    assert loading.load(run.to_dict()) == run


def test_a_key_that_the_method_lacks_is_a_fault_that_lists_its_keys():
    (line,) = faults({"method": "mixup", "objective": {"beta": 0.2}})
    assert "objective.beta is not a key of method 'mixup'" in line and "objective.alpha" in line
    (line,) = faults({}, method="concat", mix__level="input")
    assert line.startswith("overrides: mix.level is not a key of method 'concat'")


def test_a_fault_names_who_gave_the_key(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("train: {epochs: 0, learning_rate: 1e-3}\nobjektive: 1\n")
    with pytest.raises(InputError) as caught:
        loading.load(path, overrides={"model.dropout": 1, "objective.temprature": 0.1})
    assert sorted(caught.value.faults) == [
        f"{path}: train.epochs must be >= 1, but got 0; the nearest valid value is 1",
        f"{path}: unknown key 'objektive'; did you mean 'objective'?",
        "overrides: model.dropout must be < 1, but got 1",
        "overrides: unknown key 'objective.temprature'; did you mean 'objective.temperature'?",
    ]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"method": "m3coll"}, ("method 'm3coll' is unknown", "'m3col'")),
        ({"method": 3}, ("method",)),
        ({"data": {"name": "rosmapp"}}, ("data.name", "'rosmap'")),
        ({"data": {"modalities": ["a"]}}, ("needs at least two modalities", "['a']")),
        ({"method": "single"}, ("needs data.modalities with exactly one",)),
        ({"method": "single", "data": {"modalities": ["a", "b"]}}, ("exactly one", "['a', 'b']")),
        ({"train": {"batch_size": 8, "shards": 9}}, ("train.shards must be <= train.batch_size", "nearest", "8")),
        ({"train": {"schedule": {"kind": "plateau"}}, "validation": {"kind": "none"}}, ("plateau", "validation")),
        ({"objective": {"class_weight": [0, 0]}}, ("class_weight", "positive")),
        ({"data": {"preprocess": ["minmaxx"]}}, ("data.preprocess[0]", "'minmax'")),
        ({"data": {"preprocess": [3]}}, ("data.preprocess[0]", "3")),
        ({"data": {"preprocess": {"a": [{"anova": 0}]}}}, ("data.preprocess.a[0]", "anova", "0")),
        ({"data": {"preprocess": 3}}, ("data.preprocess", "list", "3")),
        ({"data": {"preprocess": None}}, ("data.preprocess",)),
        ({"train": 3}, ("train must be a section",)),
        (
            {"train": {"encoder_learning_rate": -1}},
            ("must be > 0 or a mapping, but got -1",),
        ),
        ({"train": {"encoder_learning_rate": {"a": -1}}}, ("train.encoder_learning_rate.a must be > 0, but got -1",)),
        ({"epochs": 3}, ("unknown key 'epochs'", "'train.epochs'")),
    ],
)
def test_rules_across_fields_are_one_line_each(raw, words):
    found = faults(raw)
    assert len(found) == (2 if raw == {"method": 3} else 1), found
    assert all(word in "\n".join(found) for word in words), found


def test_rules_across_fields_show_together_with_all_others():
    raw = {"method": "concat", "objective": {"beta": 1}, "train": {"epochs": -1, "batch_size": 2, "shards": 5},
           "data": {"name": "x", "preprocess": ["y"]}, "nonsense": 1}  # fmt: skip
    assert len(faults(raw)) == 6


def test_a_draft_keeps_what_is_good_and_says_what_is_not():
    draft = loading.parse({"train": {"epochs": 0, "seed": 5}, "method": "m3coll", "x": 1})
    assert draft.config.train.seed == 5 and draft.config.train.epochs == load({}).train.epochs
    assert draft.faulty == {"train.epochs", "method", "x"} and len(draft.faults) == 3
    good = loading.parse({"train": {"seed": 5}})
    assert not good.faults and good.config == loading.load({"train": {"seed": 5}})


def test_a_key_whose_removal_breaks_another_one_still_leaves_a_draft():
    # Without the unknown method it is M3CoL, which one modality is too few for.
    draft = loading.parse({"method": "singel", "data": {"modalities": ["a"]}, "train": {"seed": 5}})
    assert draft.config.train.seed == 5 and len(draft.faults) == 1


@pytest.mark.parametrize(
    ("word", "pair"),
    [
        ("objective.beta=0.2", ("objective.beta", 0.2)),
        ("train.learning_rate=1e-4", ("train.learning_rate", 1e-4)),
        ("data.modalities=[a, 2]", ("data.modalities", ["a", 2])),
        ("metric=", ("metric", None)),
        ("data.dir=a=b", ("data.dir", "a=b")),
        ("objective.beta=[1", ("objective.beta", "[1")),
    ],
)
def test_overrides_are_read_as_yaml(word, pair):
    assert loading.parse_override(word) == pair


@pytest.mark.parametrize("word", ["beta", "=3", " =3"])
def test_an_override_without_key_or_sign_is_a_fault(word):
    with pytest.raises(InputError, match=r"key\.path=value"):
        loading.parse_override(word)


def test_find_names_what_is_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert loading.find("digits", "train") == loading.find("configs/train/digits.yaml", "train")
    (tmp_path / "mine.yaml").write_text("")
    for name, words in (("digit", "'digits'"), (tmp_path / "mini.yaml", "mine.yaml"), ("zzz", "choose from brca")):
        with pytest.raises(InputError, match="no such file") as caught:
            loading.find(name, "train")
        assert words in caught.value.faults[0]


def test_the_config_of_a_search_is_not_one_of_a_run(tmp_path):
    with pytest.raises(InputError, match="m3col search"):
        loading.load(loading.folder() / "search" / "digits.yaml")


def test_the_digest_depends_on_values_and_not_on_order():
    a, b = {"x": 1, "y": {"z": [1.5]}}, {"y": {"z": [1.5]}, "x": 1}
    assert loading.digest(a) == loading.digest(b) != loading.digest({**a, "x": 2})


def test_faults_join_into_one_message_and_survive_a_process_border():
    import pickle

    error = InputError(["a", "b"])
    assert str(error) == "a\nb" and pickle.loads(pickle.dumps(error)).faults == ("a", "b")
    assert nearest("betaa", ["beta", "alpha"]) == "; did you mean 'beta'?"
    assert nearest("x", ["beta", "alpha"]) == "; choose from alpha, beta" and nearest("x", []) == ""


@pytest.mark.parametrize(("name", "text"), [("n24news", "roberta-base"), ("food101", "bert-base-uncased")])
def test_image_text_configs_are_the_papers_table_6(name, text):
    """Kumar et al., Table 6 and section 4."""
    run = loading.load(name)
    assert (run.model.image.name, run.model.text.name) == ("vit_base_patch16_224.augreg_in21k", text)
    assert run.model.image.pretrained and run.model.text.pretrained
    assert (run.model.embedding_dim, run.model.classifier_dim, run.model.classifier_layers) == (768, 256, 3)
    assert run.model.dropout == 0 and run.data.text.max_length == 512 and run.data.image.size == 224
    train = run.train
    assert (train.epochs, train.learning_rate, train.weight_decay, train.decay) == (50, 1e-4, 1e-4, "weights")
    assert (train.batch_size, train.accumulate) == (32, 4)
    assert (train.schedule.kind, train.schedule.gamma, train.schedule.patience) == ("plateau", 0.2, 2)
    objective = run.objective
    assert (objective.alpha, objective.beta, objective.temperature) == (0.15, 0.1, 0.1)
    assert last_mixup_epoch(train.epochs, objective.switch_point) == 17
    assert (run.metric, run.validation.kind) == ("val/accuracy", "given")

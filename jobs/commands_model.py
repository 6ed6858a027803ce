"""`m3col evaluate` and `m3col predict`."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.words import print_metrics, runs_of
from m3col import config as run_config
from m3col import data as datasets
from m3col import files
from m3col.faults import BadInput, nearest


def evaluate(arguments: argparse.Namespace) -> int:
    import m3col
    from m3col import ledger, metrics
    from m3col.prepare import disk_faults

    predictor = m3col.load(arguments.checkpoint)
    name = arguments.data or predictor.config["data"]["name"]
    if name == run_config.IN_MEMORY:
        raise BadInput(["evaluate: the checkpoint was trained on arrays in memory; name a data set with --data"])
    trained_on = None if arguments.data else predictor.config["data"].get("dir")
    folder = arguments.data_dir or (Path(trained_on) if trained_on else None)
    dataset = datasets.load(name, data_dir=folder, modalities=list(predictor.modalities))
    faults = disk_faults(runs_of(arguments), 0, what="the ledger")
    if dataset.test is None or dataset.test.labels is None:
        faults.append(f"{name}: has no labelled test split to evaluate on")
    if dataset.classes != predictor.classes:
        faults.append(f"{name}: has the classes {dataset.classes}, but the checkpoint has {predictor.classes}")
    faults += [
        f"{name}: the features of {modality!r} are not those that the checkpoint was trained on"
        for modality, features in predictor.features.items()
        if dataset.features[modality] != features
    ]
    if faults or dataset.test is None or dataset.test.labels is None:
        raise BadInput(faults)
    found = metrics.compute(dataset.test.labels, predictor.predict_proba(dataset.test.inputs))
    by = f"evaluate/{'+'.join(str(Path(folder).absolute()) for folder in arguments.checkpoint)}"
    ledger.add(runs_of(arguments), dataset=name, digest=dataset.digests()["test"], by=by, rows=1)
    print_metrics({f"test/{key}": value for key, value in found.items()})
    return 0


def predict(arguments: argparse.Namespace) -> int:
    import m3col

    predictor = m3col.load(arguments.checkpoint)
    inputs = _read_inputs(arguments, predictor.modalities)
    votes = predictor.votes(inputs)
    header = ["row", "label", *(f"p({name})" for name in predictor.classes)]
    header += [f"vote({name})" for name in votes if name != "fused"]
    classes = np.asarray(predictor.classes)
    rows = [
        [row + 1, classes[p.argmax()], *(f"{value:.6g}" for value in p)]
        + [classes[value[row].argmax()] for name, value in votes.items() if name != "fused"]
        for row, p in enumerate(votes["fused"])
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    if arguments.out is None:
        sys.stdout.write(text.getvalue())
        return 0
    files.write_text(arguments.out, text.getvalue())
    print(f"{len(rows)} predictions in {arguments.out}")
    return 0


def _read_inputs(arguments: argparse.Namespace, modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """The files of `modality=file.csv` words. Raises BadInput with every fault of words, files and --out."""
    from m3col.data.textfile import read_matrix

    faults: list[str] = []
    inputs: dict[str, np.ndarray] = {}
    named: list[str] = []
    for word in arguments.inputs:
        name, sign, file = word.partition("=")
        if not sign or name not in modalities:
            faults.append(f"{word!r}: must have the form modality=file.csv{nearest(name, modalities)}")
            continue
        if name in named:
            faults.append(f"{word!r}: modality {name!r} is given twice")
        named.append(name)
        matrix = read_matrix(Path(file), faults)
        if matrix is not None:
            inputs[name] = matrix
    faults += [f"modality {name!r} is missing; add {name}=file.csv" for name in modalities if name not in named]
    if arguments.out is not None and not arguments.out.absolute().parent.is_dir():
        faults.append(f"--out {arguments.out}: {arguments.out.absolute().parent} is not a folder")
    if arguments.out is not None and arguments.out.is_dir():
        faults.append(f"--out {arguments.out}: is a folder; name a file in it, such as {arguments.out / 'labels.csv'}")
    if faults:
        raise BadInput(faults)
    return inputs

"""`m3col evaluate` and `m3col predict`."""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.terminal.console import print_metrics, runs_of
from m3col.config import loading as run_config
from m3col.config import rules
from m3col.data import loading, modality_kinds
from m3col.errors import InputError, nearest
from m3col.runtime import notices
from m3col.storage import atomic_files

if TYPE_CHECKING:
    from m3col.data.dataset import Dataset
    from m3col.predictor import Predictor


def evaluate(arguments: argparse.Namespace) -> int:
    import m3col
    from m3col.checks.limits import disk_faults
    from m3col.evaluation import test_ledger

    predictor = m3col.load(arguments.checkpoint, device=arguments.device)
    faults = disk_faults(runs_of(arguments), 0, what="the ledger")
    try:
        dataset = data_for(predictor, arguments)
    except InputError as error:
        raise InputError([*faults, *error.faults]) from None
    faults += predictor.dataset_faults(dataset)
    if faults or dataset.test is None or dataset.test.labels is None:
        raise InputError(faults)
    metrics = predictor.task.scores(dataset.test.labels, predictor.votes(dataset.test.inputs)[predictor.primary])
    if predictor.device_note:
        notices.warn(predictor.device_note)
    by = f"evaluate/{'+'.join(str(Path(folder).absolute()) for folder in arguments.checkpoint)}"
    test_ledger.add(runs_of(arguments), dataset=dataset.name, digest=dataset.digests()["test"], by=by, rows=1)
    print_metrics({f"test/{key}": value for key, value in metrics.items()})
    return 0


def data_for(predictor: "Predictor", arguments: argparse.Namespace) -> "Dataset":
    """Loads the data set that --data and --data-dir name, by default the one of the training, with the columns of the
    training. Raises InputError."""
    from m3col.checks.resolve import layout

    run = run_config.load_stored(predictor.config, where="checkpoint")
    name = arguments.data or run.data.name
    if name == rules.IN_MEMORY:
        text = "the checkpoint was trained on arrays in memory; name a data set with --data"
        raise InputError([f"{arguments.command}: {text}"])
    trained_on = None if arguments.data else run.data.dir
    folder = arguments.data_dir or (Path(trained_on) if trained_on else None)
    return loading.load(
        name, data_dir=folder, modalities=list(predictor.modalities), layout=layout(run), images=True,
        resplit=None if arguments.data else run.data.resplit,
        permutation=None if arguments.data else run.data.permuted_labels, task=run.task,
    )  # fmt: skip


def predict(arguments: argparse.Namespace) -> int:
    import pandas as pd

    import m3col

    predictor = m3col.load(arguments.checkpoint, device=arguments.device)
    inputs = _read_csv(arguments, predictor) if arguments.csv is not None else _read_inputs(arguments, predictor)
    try:
        table = predictor.predict_table(inputs)
    except InputError as error:
        place = "" if arguments.csv is None else f"{arguments.csv}: "
        raise InputError([f"{place}{line}" for line in error.faults]) from None
    digits = 6 if predictor.task.probabilities else 12  # numbers keep what is below a large mean
    ids = [] if isinstance(table.index, pd.RangeIndex) else [[name] for name in table.index]
    rows = [
        [
            number,
            *(ids[number - 1] if ids else ()),
            *(f"{value:.{digits}g}" if isinstance(value, float) else value for value in line),
        ]
        for number, line in enumerate(table.itertuples(index=False, name=None), start=1)
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["row", *(["id"] if ids else ()), *table.columns], *rows])
    if arguments.out is None:
        sys.stdout.write(text.getvalue())
        return 0
    atomic_files.write_text(arguments.out, text.getvalue())
    print(f"{len(rows)} predictions in {arguments.out}")
    return 0


def _out_faults(out: Path | None) -> list[str]:
    if out is not None and not out.absolute().parent.is_dir():
        return [f"--out {out}: {out.absolute().parent} is not a folder"]
    if out is not None and out.is_dir():
        return [f"--out {out}: is a folder; name a file in it, such as {out / 'labels.csv'}"]
    return []


def _read_csv(arguments: argparse.Namespace, predictor: "Predictor") -> dict[str, Any]:
    """Reads one file for all modalities. Columns: image paths (relative to the file), texts, `modality.feature`.

    Raises InputError with every fault of the file and of --out.
    """
    from m3col.data.formats import unlabelled_csv
    from m3col.data.formats.pairs import FaultCollector
    from m3col.inputs import user_arrays
    from m3col.tracking.payload import model_columns

    collector, faults, path = FaultCollector(), _out_faults(arguments.out), arguments.csv
    if arguments.inputs:
        faults.append(f"{arguments.inputs[0]!r}: --csv holds all modalities; leave the other files out")
    kinds, numeric = predictor.kinds, model_columns(predictor.features, predictor.kinds)
    series = [name for name, kind in kinds.items() if modality_kinds.of(kind).has_steps]
    if series:
        files = " ".join(f"{name}={name}.csv" for name in kinds)
        text = f"has one row per sample, which cannot hold the sequences of {', '.join(series)}; give {files} instead"
        raise InputError([*faults, f"--csv {path}: {text}"])
    columns = {
        name: numeric[name] if modality_kinds.of(kinds[name]).is_table else own
        for name, own in predictor.features.items()
    }
    inputs = unlabelled_csv.read(path, columns, kinds, collector)
    faults += collector.lines()
    for name in inputs:
        if modality_kinds.of(kinds[name]).is_table:
            try:
                # Missing values are allowed here: the model may impute them, or refuses them later.
                inputs[name] = user_arrays.numbers(
                    inputs[name], columns[name], where=str(path), may_miss=True, precision=predictor.precision
                )
            except InputError as error:
                faults += error.faults
    if faults:
        raise InputError(faults)
    return inputs


def _read_inputs(arguments: argparse.Namespace, predictor: "Predictor") -> dict[str, Any]:
    """Reads the files of `modality=file.csv` words. Their samples are matched by position, or by id if the files have
    ids: those of sequences, and tables with a column `id` beside them.

    Raises InputError with every fault of words, files and --out.
    """
    from m3col.data.formats import sequence_folder
    from m3col.data.formats.table_csv import read_matrix
    from m3col.data.sequences.files import read_file

    faults: list[str] = []
    inputs: dict[str, Any] = {}
    modalities = predictor.modalities
    steps = [name for name, kind in predictor.kinds.items() if modality_kinds.of(kind).has_steps]
    named: list[str] = []
    for word in arguments.inputs:
        name, sign, file = word.partition("=")
        if not sign or name not in modalities:
            faults.append(f"{word!r}: must have the form modality=file.csv{nearest(name, modalities)}")
            continue
        if name in named:
            faults.append(f"{word!r}: modality {name!r} is given twice")
        named.append(name)
        if name in steps:
            sequences = read_file(Path(file), faults)
            inputs[name] = None if sequences is None else sequences.samples(predictor.features[name], faults)
        elif steps and sequence_folder.has_ids(Path(file)):
            inputs[name] = sequence_folder.read_table(Path(file), faults)
        elif (matrix := read_matrix(Path(file), faults)) is not None:
            inputs[name] = matrix
    faults += [f"modality {name!r} is missing; add {name}=file.csv" for name in modalities if name not in named]
    faults += _out_faults(arguments.out)
    if faults:
        raise InputError(faults)
    return inputs

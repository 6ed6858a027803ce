"""`m3col data`: list, check, fetch, convert."""

import argparse
import sys
from typing import Any

from rich.table import Table

from jobs.terminal.console import console
from m3col.data import catalog as datasets
from m3col.data import loading
from m3col.data.formats.csv_columns import Layout
from m3col.errors import InputError
from m3col.storage.redaction import scrubbed
from m3col.tasks import registry as tasks

_MAX_COLUMNS = 7  # columns of a table on a terminal


def data(arguments: argparse.Namespace) -> int:
    actions = {"list": _data_list, "check": _data_check, "fetch": _data_fetch, "convert": _data_convert}
    return actions[arguments.action](arguments)


def _data_list(arguments: argparse.Namespace) -> int:
    table = Table("name", "here", "modalities", "what it is")
    for name, entry in datasets.TABLE.items():
        try:
            folder = None if entry.embedded else loading.locate(name, data_dir=arguments.data_dir)
            place = "embedded" if folder is None else str(folder) if entry.looks_like(folder) else "-"
        except InputError:
            place = "-"
        table.add_row(name, place, ", ".join(entry.default or entry.modalities or ()), entry.description)
    console().print(table)
    return 0


def _data_check(arguments: argparse.Namespace) -> int:
    from m3col.data.checks.check_folder import check

    columns_given: dict[str, Any] = {"image": arguments.image} if arguments.image else {}
    columns_given |= {"label": arguments.label} if arguments.label else {}
    task_faults = tasks.faults(arguments.task)
    form = "class" if task_faults else tasks.load(arguments.task).label_form
    if form != "class":
        columns_given["form"] = form
        if arguments.label and "," in arguments.label:
            columns_given["label"] = tuple(arguments.label.split(","))
    if arguments.text:
        columns_given["text"] = tuple(arguments.text.split(","))
    tokenizer, faults = None, [f"--task: {line}" for line in task_faults]
    if arguments.max_length < 1:
        faults.append(f"--max-length {arguments.max_length}: must be >= 1; nearest valid: 1")
    if arguments.tokenizer:
        from m3col.inputs import tokenization

        try:
            tokenizer, _ = tokenization.load(arguments.tokenizer, key="--tokenizer")
        except InputError as error:
            faults += error.faults
    report = check(
        arguments.folder, layout=Layout(**columns_given) if columns_given else None, tokenizer=tokenizer,
        max_length=arguments.max_length,
    )  # fmt: skip
    screen = console()
    for columns, rows in ((report.columns, report.rows), (report.class_columns, report.class_rows)):
        lines = [columns, *rows]
        if len(columns) > _MAX_COLUMNS:  # transposed: so many columns side by side would be cut off
            lines = list(zip(*lines, strict=True))
        if rows:
            table = Table(*lines[0])
            for row in lines[1:]:
                table.add_row(*row)
            screen.print(table)
    for line in report.warnings:
        screen.print(f"warning: {line}", soft_wrap=True)
    faults += report.faults
    sys.stderr.write("".join(f"error: {line}\n" for line in faults))
    if not faults and report.warnings:
        count = f"{len(report.warnings)} warning{'s' if len(report.warnings) > 1 else ''}"
        screen.print(f"usable: no faults, but {count} above to read", soft_wrap=True)
    elif not faults:
        screen.print("ok: this folder can be used", soft_wrap=True)
    return 2 if faults else 0


def _data_fetch(arguments: argparse.Namespace) -> int:
    import warnings

    from m3col.data import download

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        place = download.fetch(arguments.name, arguments.to, base_url=arguments.base_url or download.DEFAULT)
    for item in caught:
        sys.stderr.write(f"warning: {scrubbed(str(item.message))}\n")
    print(f"{arguments.name} is in {place}")
    return 0


def _data_convert(arguments: argparse.Namespace) -> int:
    if arguments.source == "vision_touch":
        from m3col.data.vision_touch import convert as vision_touch

        remarks = vision_touch.convert(arguments.file, arguments.to, split=arguments.split)
        print(f"{vision_touch.NAME} is in {arguments.to}")
    elif arguments.split != "file":
        raise InputError(["--split: is for vision_touch alone; files of MultiBench have their split"])
    else:
        from m3col.data.multibench.convert import convert

        converted = convert(arguments.file, arguments.to)
        counts = ", ".join(f"{len(columns['id']):,} for {split}" for split, columns in converted.rows.items())
        print(f"{converted.name} is in {arguments.to}: {counts}")
        remarks = converted.remarks
    for line in remarks:
        print(f"note: {line}")
    return 0

"""`m3col data`: list, check, fetch."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from m3col import data as datasets
from m3col.faults import BadInput


def data(arguments: argparse.Namespace) -> int:
    return {"list": _data_list, "check": _data_check, "fetch": _data_fetch}[arguments.action](arguments)


def _data_list(arguments: argparse.Namespace) -> int:
    from m3col.data import mogonet

    table = Table("name", "here", "modalities", "what it is")
    for name, entry in datasets.TABLE.items():
        try:
            folder = None if entry.embedded else datasets.locate(name, data_dir=arguments.data_dir)
            place = "embedded" if folder is None else str(folder) if mogonet.looks_like(folder) else "-"
        except BadInput:
            place = "-"
        table.add_row(name, place, ", ".join(entry.default or entry.modalities or ()), entry.description)
    Console().print(table)
    return 0


def _data_check(arguments: argparse.Namespace) -> int:
    from m3col.data.check import check

    found = check(arguments.folder)
    console = Console()
    for columns, rows in ((found.columns, found.rows), (found.class_columns, found.class_rows)):
        if rows:
            table = Table(*columns)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    for line in found.warnings:
        console.print(f"warning: {line}", soft_wrap=True, markup=False)
    sys.stderr.write("".join(f"error: {line}\n" for line in found.faults))
    if found.ok:
        console.print("ok: this folder can be used", soft_wrap=True)
    return 0 if found.ok else 2


def _data_fetch(arguments: argparse.Namespace) -> int:
    import warnings

    from m3col.data import fetch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        place = fetch.fetch(arguments.name, arguments.to, base_url=arguments.base_url or fetch.DEFAULT)
    for item in caught:
        sys.stderr.write(f"warning: {item.message}\n")
    print(f"{arguments.name} is in {place}")
    return 0

"""Compares the winners of several trees on one data set, paired by split."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from m3col.errors import InputError
from m3col.methods import registry
from tune.config.extra_rows import TAKEN
from tune.outer import table as tables
from tune.outer import tree_report
from tune.outer.table import SplitResult
from tune.outer.tree_folder import TreeFolder
from tune.results.study_results import WINNER

_DIVISION = ("kind", "folds", "seed", "groups")


def faults(trees: Sequence[TreeFolder]) -> list[str]:
    """Why these trees cannot be compared split by split, one line each: other data, or another division of it."""
    first = _division(trees[0])
    return [
        f"{tree.path}: its splits are not those of {trees[0].name} ({_shown(_division(tree))}, there {_shown(first)})"
        for tree in trees[1:]
        if _division(tree) != first
    ]


def _division(tree: TreeFolder) -> dict[str, object]:
    described = tree.described()
    return {"data": described["dataset"]["name"], **{key: described["outer"][key] for key in _DIVISION}}


def _shown(division: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in division.items())


def compare(trees: Sequence[TreeFolder], *, reference: str | None = None) -> pd.DataFrame:
    """Returns the table of `tune.outer.table.table` with one row per tree: the scores of its winner.

    The baselines and `final.rows` of the first tree follow, so that their differences stand in the same table.

    Args:
        trees: trees with the same divisions of the same data; two or more.
        reference: the tree with which the others are compared; None: the first.

    Raises:
        InputError: the divisions differ, there is no such tree, or no split has ended in all trees.
    """
    lines = faults(trees)
    names = dict(zip([tree.name for tree in trees], row_names(trees), strict=True))
    if reference is not None and reference not in names:
        lines.append(f"--reference {reference}: must be one of the trees: {', '.join(names)}")
    if lines:
        raise InputError(lines)
    by_tree = {tree.name: {each.name: each for each in tree_report.results(tree)} for tree in trees}
    common = [name for name in by_tree[trees[0].name] if all(name in splits for splits in by_tree.values())]
    if not common:
        raise InputError([f"{trees[0].path}: no split has ended in all of {', '.join(names)}"])
    joined = [_joined(split, by_tree, names) for split in common]
    return tables.table(joined, reference=names[reference or trees[0].name])


def row_names(trees: Sequence[TreeFolder]) -> list[str]:
    """Returns what the trees are called in a table: their methods; of two with the same method, their own names."""
    methods = [_method(tree) for tree in trees]
    counts = Counter(methods)
    return [
        method if counts[method] == 1 else f"{method} ({tree.name})"
        for method, tree in zip(methods, trees, strict=True)
    ]


def _method(tree: TreeFolder) -> str:
    described = tree.described()
    spec = registry.find(described["config"]["run"]["method"])
    return f"{spec.display_name}:{described['dataset']['modalities'][0]}" if spec.one_modality else spec.display_name


def _joined(split: str, by_tree: dict[str, dict[str, SplitResult]], names: dict[str, str]) -> SplitResult:
    """One split with the winner of each tree, and the other rows of the first tree."""
    parts = []
    for number, (tree, results) in enumerate(by_tree.items()):
        metrics = results[split].metrics
        parts.append(metrics[metrics["row"] == WINNER].assign(row=names[tree], label=names[tree]))
        if number == 0:
            others = metrics[~metrics["row"].isin([*TAKEN, *names.values()])]
    first = by_tree[next(iter(by_tree))][split]
    return SplitResult(split, first.train, first.test, pd.concat([*parts, others], ignore_index=True))

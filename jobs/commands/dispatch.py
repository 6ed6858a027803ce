"""The function of each command. Its module is imported when it is called, so that no command waits for others."""

import argparse
from collections.abc import Callable
from importlib import import_module

Command = Callable[[argparse.Namespace], int]


def _lazily(module: str, name: str) -> Command:
    def call(arguments: argparse.Namespace) -> int:
        return int(getattr(import_module(module), name)(arguments))

    return call


_MODULES = {
    "jobs.commands.train_search": ("train", "search"),
    "jobs.commands.cluster_jobs": ("submit", "jobs"),
    "jobs.commands.study": ("report", "ui", "sync", "runs"),
    "jobs.commands.boards": ("leaderboard",),
    "jobs.commands.model": ("evaluate", "predict"),
    "jobs.commands.analyse": ("analyse",),
    "jobs.commands.data": ("data",),
}

COMMANDS: dict[str, Command] = {name: _lazily(module, name) for module, names in _MODULES.items() for name in names}

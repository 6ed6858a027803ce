"""The folder of one run of a study."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m3col.config import yaml_files
from m3col.storage import atomic_files
from m3col.storage.redaction import scrubbed
from m3col.storage.retry import RetryPolicy
from tune.study.run_messages import FinishedAttempt, RunOutcome

AT_ONCE = RetryPolicy(0)


class RunFolder:
    """Files of one run of a study: a trial, a replicate, a confirmation or a refit. Failed writes are retried."""

    def __init__(self, path: Path, retry_policy: RetryPolicy = AT_ONCE) -> None:
        self.path, self._retry_policy = path, retry_policy

    def create(self, config: Mapping[str, Any]) -> None:
        """Creates the folder with config.yaml. An existing config.yaml is kept."""

        def write() -> None:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / "config.yaml").exists():
                atomic_files.write_text(self.path / "config.yaml", yaml_files.dump(dict(config)))

        self._retry_policy.call(write)

    def config(self) -> dict[str, Any]:
        """Returns the run config from config.yaml."""
        return yaml_files.read(self.path / "config.yaml")

    def history(self) -> list[dict[str, Any]]:
        """Returns the records of the finished epochs. A line that a crash left incomplete is skipped."""
        path = self.path / "history.jsonl"
        records = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def append(self, records: Sequence[Mapping[str, Any]], *, restart: bool) -> None:
        """Appends records to history.jsonl. With `restart`, `records` replace all records of earlier attempts."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        if restart:
            self._retry_policy.call(lambda: atomic_files.write_text(self.path / "history.jsonl", text))
        else:
            self._append("history.jsonl", text)

    def log(self, line: str) -> None:
        """Appends a line with the time to log.txt."""
        self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {scrubbed(line)}\n")

    def _append(self, name: str, text: str) -> None:
        path = self.path / name
        length: int | None = None

        def write() -> None:
            nonlocal length
            if length is None:
                length = path.stat().st_size if path.exists() else 0
            with path.open("ab") as stream:
                stream.truncate(length)  # removes what a failed try wrote
                stream.write(text.encode())

        self._retry_policy.call(write)

    def outcome(self) -> RunOutcome | None:
        """Returns how the run ended, from result.json; None if it has not ended."""
        path = self.path / "result.json"
        return RunOutcome.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write_outcome(self, outcome: RunOutcome) -> None:
        """Writes result.json, which marks the run as ended."""
        self._retry_policy.call(lambda: atomic_files.write_json(self.path / "result.json", outcome.to_dict()))

    def finished_attempt(self) -> FinishedAttempt | None:
        """Returns outcome.json of the newest attempt that trained the last epoch; None if there is none.

        Attempts with another config are skipped, such as those of a refit of an earlier winner.
        """
        folder = self._finished_folder()
        if folder is None:
            return None
        return FinishedAttempt.from_dict(json.loads((folder / "outcome.json").read_text(encoding="utf-8")))

    def _finished_folder(self) -> Path | None:
        from tune.study import attempts  # it needs torch

        done = [path.parent for path in self.path.glob("attempt-*/outcome.json")]
        digest = attempts.training_config_digest(self.config()) if done else None
        descriptions = {path: atomic_files.read_json(path / attempts.DESCRIPTION, {}) for path in done}
        matching = [path for path in done if attempts.matches_config(descriptions[path], digest)]
        return max(matching, key=lambda path: (attempts.number_of(path.name), path.name), default=None)

    def drop_checkpoints(self, *, incomplete: bool = True) -> None:
        """Removes the training checkpoints of a run that will not continue.

        Args:
            incomplete: whether also those that are still being written, or were left so by a killed process.
        """
        for pattern in ["attempt-*/epoch-*", *(["attempt-*/.epoch-*"] if incomplete else [])]:
            for path in self.path.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def set_aside(self) -> Path:
        """Moves the folder of a run that the database does not have to `aside/`. Returns the new path."""
        aside = self.path.parents[1] / "aside"
        number = 1
        while (target := aside / f"{self.path.parent.name}-{self.path.name}-{number}").exists():
            number += 1
        aside.mkdir(exist_ok=True)
        self.path.rename(target)
        return target

    def clear(self) -> None:
        """Removes the folder, so that the run can be started again."""
        shutil.rmtree(self.path, ignore_errors=True)

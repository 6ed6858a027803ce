"""A study's folder without any training: the files that a search would leave, with invented numbers."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.data import loading
from m3col.data.dataset import Dataset
from m3col.metrics import classification
from m3col.storage import atomic_files
from tune.config import loading as search_config
from tune.study.record import StudyFolder
from tune.study.run_messages import COMPLETE, PRUNED, RunOutcome

METRIC = "val/macro_f1"
WINNER = 17
START = 1_790_000_000.0
SPACE = {
    "objective.alpha": {"low": 0.05, "high": 1.0, "log": True},
    "objective.beta": {"low": 0.01, "high": 1.0, "log": True},
    "objective.temperature": {"low": 0.01, "high": 1.0, "log": True},
    "objective.switch_point": {"low": 0.1, "high": 0.9},
}


def make(runs: Path, name: str = "digits-1", *, trials: int = 30, epochs: int = 20) -> StudyFolder:
    """`runs/<name>/` with study.json and no trial yet."""
    base = runs / f"base-{name}.yaml"
    runs.mkdir(parents=True, exist_ok=True)
    base.write_text(f"method: m3col\nmetric: {METRIC}\ndata: {{name: digits}}\ntrain: {{epochs: {epochs}}}\n"
                    "validation: {kind: kfold, folds: 5}\n", encoding="utf-8")  # fmt: skip
    raw = {"base": str(base), "space": SPACE, "search": {"trials": trials}}
    (config,) = search_config.load(raw)
    folder = StudyFolder.create(runs, name, config, dataset(), partitions_digest="0" * 64, search_id="search0001")
    base.unlink()
    return folder


def dataset() -> Dataset:
    return loading.load("digits")


def epoch(number: int, value: float, *, at: float, few: bool = False) -> dict[str, Any]:
    loss = 4.0 / (1 + number) + 1 - value
    found = {"train/loss": loss, "val/loss": loss + 0.1, METRIC: value}
    if not few:
        heads = ("pixels", "fourier", "gradients")
        found |= {f"train/ce_{head}": loss / 3 for head in (*heads, "fused")} | {"train/softclip": loss}
        found |= {f"val/ce_{head}": loss / 2 for head in (*heads, "fused")} | {"train/learning_rate": 1e-3}
        found |= {f"val/accuracy_{head}": value - 0.1 for head in heads}
        found |= {f"val/{name}": value for name in classification.names(10)}
    return {"epoch": number, "time": at, "value": value, "metrics": found}


def add_trial(
    folder: StudyFolder,
    number: int,
    params: dict[str, Any],
    *,
    score: float,
    epochs: int = 20,
    state: str | None = COMPLETE,
    failure: str | None = None,
    few: bool = False,
) -> None:
    """A trial that reached `epochs`; `state` None: it is still running."""
    run = folder.run(f"trials/{number}")
    run.create(folder.config().point(params).to_dict())
    begun = START + 60 * number
    run.append([_record(e, score, begun, few) for e in range(1, epochs + 1)], restart=False)
    if state is not None:
        finish(folder, number, score=score, epochs=epochs, state=state, failure=failure)


def _record(number: int, score: float, begun: float, few: bool) -> dict[str, Any]:
    return epoch(number, score * (1 - 0.6 * 0.8**number), at=begun + number, few=few)


def finish(
    folder: StudyFolder, number: int, *, score: float, epochs: int, state: str = COMPLETE, failure: str | None = None
) -> None:
    begun = START + 60 * number
    outcome = RunOutcome(
        state=state, value=score if state == COMPLETE else score * 0.9, loss=0.3, epochs=epochs, seconds=float(epochs),
        failure=failure, started=begun, ended=begun + epochs + 1,
    )  # fmt: skip
    folder.run(f"trials/{number}").write_outcome(outcome)


def searched(folder: StudyFolder, *, trials: int = 30, seed: int = 0, few: bool = False, epochs: int = 20) -> None:
    """Trials 0 (the default) to n - 1; of the others every third is pruned, number 5 failed."""
    draw = np.random.default_rng(seed)
    for number in range(trials):
        params = {k: float(np.exp(draw.uniform(np.log(v["low"]), np.log(v["high"])))) for k, v in SPACE.items()}
        if number == 0:
            params = {}
        score = float(0.80 + 0.1 * draw.random()) if number else 0.85
        score = 0.892 if number == WINNER else score
        state = PRUNED if number and number % 3 == 0 else COMPLETE
        length = epochs * 2 // 5 if state == PRUNED else epochs
        if number == 5:
            add_trial(
                folder, 5, params, score=0.3, epochs=3, state="failed", failure="train/loss is nan in epoch 4", few=few
            )
            continue
        add_trial(folder, number, params, score=score, epochs=length, state=state, few=few)


def report(folder: StudyFolder, *, winner: int = WINNER) -> None:
    """results/ as `tune.results.report` leaves it, without model and plots."""
    results = folder.results
    results.mkdir(exist_ok=True)
    config = folder.config()
    lines = []
    for name, run in folder.runs():
        outcome = run.outcome()
        if not name.startswith("trials/") or outcome is None:
            continue
        number = int(name.removeprefix("trials/"))
        roles = [*(["default"] if number == 0 else []), *(["winner"] if number == winner else [])]
        chosen = number in (0, winner, 1, 2)
        found = dict(config.point({}).model_dump())
        raw = {path: _at(found, path) for path in SPACE} if number == 0 else _params(run.path)
        lines.append(
            {
                "number": number,
                "state": outcome.state,
                "role": " and ".join(roles),
                "value": outcome.value,
                "loss": 0.3,
                "confirmed": (outcome.value or 0.0) - 0.01 * (number not in (0, winner)) if chosen else None,
                **raw,
                "epochs": outcome.epochs,
                "seconds": outcome.seconds,
                "failure": outcome.failure,
            }
        )
    pd.DataFrame(lines).to_csv(results / "trials.csv", index=False)
    tests = []
    for metric in ("macro_f1", "accuracy"):
        for row, test in (("winner", 0.921), ("default", 0.902), ("ensemble", 0.934), ("majority", 0.1)):
            tests.append(
                {
                    "row": row,
                    "label": row,
                    "metric": metric,
                    "cv": test - 0.02,
                    "test": test,
                    "low": test - 0.013,
                    "high": test + 0.013,
                    "difference": test - 0.902,
                }
            )
    pd.DataFrame(tests).to_csv(results / "test_metrics.csv", index=False)
    pd.DataFrame(tests[:4]).to_csv(results / "test_table.csv", index=False)
    atomic_files.write_text(results / "best_config.yaml", config.run.to_yaml())
    table = [f"| {t['row']} | {100 * t['cv']:.1f} | {100 * t['test']:.1f} |" for t in tests[:4]]
    text = [f"# {folder.name}: m3col on digits", "", f"**Trial {winner} won**: {METRIC} 89.9 % in confirmation.", ""]
    text += ["## Test: macro_f1", "", "| row | CV | test |", "|---|---|---|", *table, "", "## How the search went"]
    atomic_files.write_text(results / "summary.md", "\n".join(text) + "\n")


def predict(folder: StudyFolder, *, seeds: int = 3) -> None:
    """predictions.parquet with the test logits of the winner's refits, and their histories."""
    test = dataset().test
    assert test is not None and test.labels is not None
    draw = np.random.default_rng(1)
    parts = []
    for seed in range(seeds):
        logits = draw.normal(size=(len(test), 10))
        logits[np.arange(len(test)), test.labels] += 3
        found = {"job": f"refits/winner/{seed}", "kind": "test", "id": test.ids.astype(str), "fold": -1, "seed": seed}
        parts.append(pd.DataFrame({**found, "label": test.labels, **{f"logit_{c}": logits[:, c] for c in range(10)}}))
        run = folder.run(f"refits/winner/{seed}")
        run.create(folder.config().run.to_dict())
        run.append(
            [{**_record(e, 0.9 + 0.01 * seed, time.time(), False), "value": None} for e in range(1, 21)], restart=False
        )
    pd.concat(parts, ignore_index=True).to_parquet(folder.path / "predictions.parquet", index=False)


def _params(path: Path) -> dict[str, Any]:
    from m3col.config import yaml_files

    raw = yaml_files.read(path / "config.yaml")
    return {name: _at(raw, name) for name in SPACE}


def _at(raw: dict[str, Any], path: str) -> Any:
    section, key = path.split(".")
    return raw[section][key]

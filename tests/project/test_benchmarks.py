"""Every benchmark runs and prints its table. Speeds are for people to read: none is asserted here."""

import io
import os
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
import torch

from tests.conftest import REPOSITORY

# script -> what its table must show: header words, and the first cell of every row
TABLES = {
    "comm": (["plain / ours", "calls / ours", "ours MB", "losses differ by"], ["16"]),
    "epoch": (["plain / ours", "ours / products"], ["M3Co", "MultiSClip"]),
    "first_search": (["winner", "default", "late", "best baseline", "winner - baseline", "CPU s"], ["7"]),
    "image_text": (["samples / s", "of plain", "peak MB", "tokens"], ["plain", "ours"]),
    "faults": (
        ["finished", "lost", "twice", "values", "cut off", "lost work s", "recovery s", "what happened"],
        ["all in one"],
    ),
    "mlflow_cost": (
        ["seconds", "CPU seconds"],
        ["all at once", "again", "trial finished", "epochs of one", "nothing new"],
    ),
    "scale": (["driver CPU ms", "without MLflow", "resume reads MB", "opens in s"], ["4", "8", "16"]),
    "samplers": (["at 25%", "at 50%", "at 100%", "epochs spent"], ["TPE + ASHA", "random", "grid"]),
    "overhead": (["wall s", "CPU s", "others"], ["one loop", "two loops", "m3col search"]),
    "trifeatures": (["R", "U1", "U2", "S", "seeds"], ["comm", "concat"]),
    "turnaround": (["median s"], ["reused", "fresh"]),
}


def run_quick(name: str, *more: str, seconds: float = 300) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", "--quick", *more],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def run_here(name: str, *more: str) -> str:
    """The same in this process, which has imported already what a new one takes seconds for."""
    threads, printed = torch.get_num_threads(), io.StringIO()
    path = REPOSITORY / "benchmarks" / f"{name}.py"
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed):
        patched.setattr(sys, "argv", [str(path), "--quick", *more])
        patched.syspath_prepend(str(path.parent))
        try:
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(path), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    assert ended.value.code == 0, printed.getvalue()
    return printed.getvalue()


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each Markdown table in a text: header first, without the rule."""
    parsed: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            parsed[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif parsed[-1]:
            parsed.append([])
    return [[table[0], *table[2:]] for table in parsed if table]


def assert_table(name: str, text: str) -> None:
    table = tables(text)[0]
    words, rows = TABLES[name]
    assert set(words) <= set(table[0])
    assert [row[0] for row in table[1:]] == rows
    assert all(cell for row in table for cell in row)


def test_epoch_agrees_with_the_plain_loop():
    text = run_here("epoch")
    assert_table("epoch", text)
    (table,) = tables(text)
    column = table[0].index("losses differ by")
    assert all(float(row[column]) < 1e-5 for row in table[1:])


@pytest.mark.dear("it only compares samplers; that a search keeps its budget is tested with the plan")
def test_samplers_spend_no_more_than_the_budget(tmp_path):
    text = run_quick("samplers", "--plot", str(tmp_path / "samplers.png"))
    assert_table("samplers", text)
    (table,) = tables(text)
    spent = {row[0]: row[-1] for row in table[1:]}
    assert spent["random"] == spent["grid"] == "100%"
    assert (tmp_path / "samplers.png").read_bytes().startswith(b"\x89PNG")


def test_mlflow_cost_adds_nothing_the_second_time():
    text = run_here("mlflow_cost", "--trial-seconds", "5", "60")
    assert_table("mlflow_cost", text)
    assert "rows that the second sync added: 0;" in text
    assert [row[0] for row in tables(text)[1][1:]] == ["trials of 5 s", "trials of 60 s"]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_sent_twice_at_once_runs_once_and_uses_a_node_that_joins_and_survives_its_death():
    text = run_quick("faults", "--only", "all in one", seconds=560)
    assert_table("faults", text)
    (row,) = tables(text)[0][1:]
    assert row[1:5] == ["4", "0", "0", "equal"] and int(row[5]) >= 1, row
    assert re.search(r"^of two .* one ended with exit code 1: in use by process \d+; a second node joins; ", row[-1])
    assert row[-1].endswith("; 2 trials trained at the same time")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.dear(reason="the test above kills a node too, with the same comparison; this one is the demonstration")
def test_a_job_whose_node_dies_continues_from_a_checkpoint_to_the_table_of_the_undisturbed_search():
    text = run_quick("demo_cluster", seconds=560)
    assert re.search(r"the second node is killed .*checkpoint at [1-9]\d* <- there", text)
    assert re.search(r"trial \d was cut off: resumes from epoch [1-9]", text)
    assert "6 of 6 trials have a result, 0 ran twice" in text
    assert "values and tables are those of the undisturbed search" in text


def test_comm_has_the_losses_and_gradients_of_a_plain_loop():
    text = run_here("comm")
    assert_table("comm", text)
    (table,) = tables(text)
    assert all(float(row[table[0].index("losses differ by")]) < 1e-9 for row in table[1:])


@pytest.mark.dear("it only measures scores; what it trains and evaluates is tested with the methods")
def test_first_search_reads_what_an_earlier_call_left(tmp_path):
    first = run_here("first_search", "--seeds", "7", "--out", str(tmp_path))
    assert_table("first_search", first)
    assert re.search(r"\n\nOf 1 seeds, .* than both in [01]\.\n$", first)
    assert tables(run_here("first_search", "--seeds", "7", "--out", str(tmp_path))) == tables(first)  # its CPU time too


def test_trifeatures_goes_on_where_an_earlier_call_ended(tmp_path):
    first = run_quick("trifeatures", "--out", str(tmp_path / "done"))
    assert_table("trifeatures", first)
    lines = (tmp_path / "done").read_text().splitlines()
    (tmp_path / "done").write_text("\n".join(lines[:-1]) + "\n")
    assert run_quick("trifeatures", "--out", str(tmp_path / "done")) == first
    assert (tmp_path / "done").read_text().splitlines() == lines


@pytest.mark.slow
@pytest.mark.dear("it only measures a speed; early starts and baselines beside the trials are tested with the search")
def test_overhead_compares_a_search_with_plain_loops_and_shows_its_phases():
    text = run_quick("overhead", "--only", "digits")
    assert_table("overhead", text)
    phases = [row[0] for row in tables(text)[1][1:]]
    assert phases.index("Ray started") < phases.index("first actor works") < phases.index("report complete")


@pytest.mark.slow
@pytest.mark.dear("it only measures a speed; that actors are reused is tested with the engine")
def test_turnaround_compares_reused_with_fresh():
    assert_table("turnaround", run_quick("turnaround"))


@pytest.mark.slow
@pytest.mark.dear("it only measures a speed; what it measures is tested with the training")
def test_image_text_compares_a_plain_loop_with_ours():
    assert_table("image_text", run_quick("image_text", "--row", "plain", "ours"))


@pytest.mark.dear("it only measures sizes and speeds; what they belong to is tested with the study")
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(("--by-hand",), id="by hand"),
        pytest.param((), id="Ray", marks=pytest.mark.slow),
    ],
)
def test_scale_measures_at_each_count_and_resumes_each_copy(more):
    text = run_quick("scale", "--sampler", "random", *more)
    assert_table("scale", text)
    (table,) = tables(text)
    assert "16 trials in" in text and "a trial at 16 / at 4:" in text
    for name in ("driver MB", "folder MB", "db MB", "resume reads MB", "opens in s"):
        assert all(float(row[table[0].index(name)]) > 0 for row in table[1:])

"""The notebooks run from the first cell to the last, and are stored without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"

# As Jupyter does: the cells share their names, and the value of a cell's last line is shown.
_RUN = """
import ast, json, sys
names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]), f"cell {number}")
        last = [tree.body.pop()] if isinstance(tree.body[-1], ast.Expr) else []
        exec(compile(tree, f"cell {number}", "exec"), names)
        for line in last:
            value = eval(compile(ast.Expression(line.value), f"cell {number}", "eval"), names)
            print(value.to_string() if hasattr(value, "to_string") else repr(value) if value is not None else "")
"""


def run(name: str, folder: Path) -> str:
    command = [sys.executable, "-c", _RUN, str(FOLDER / f"{name}.ipynb")]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_two_without_outputs():
    paths = sorted(FOLDER.glob("*.ipynb"))
    assert [path.stem for path in paths] == ["own_dataframes", "read_a_search"]
    for path in paths:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert notebook["nbformat"] == 4 and code
        assert [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


def test_own_dataframes_end_in_predictions_of_three_new_samples(tmp_path):
    lines = run("own_dataframes", tmp_path).splitlines()
    predicted = {line.split()[0]: line.split()[1] for line in lines if line.startswith("new_")}
    assert predicted == {"new_1": "luminal", "new_2": "basal", "new_3": "basal"}


@pytest.mark.slow
@pytest.mark.dear("another search; the commands that the notebook shows are tested with the search and its tables")
def test_a_search_ends_in_its_tables_and_a_model(tmp_path):
    shown = run("read_a_search", tmp_path)
    assert "On 1,597 test samples" in shown and "pruned" in shown
    rows = [line for line in shown.splitlines() if "winner" in line or "logistic" in line or "concat" in line]
    assert len(rows) >= 5 and "'test_table.csv'" in shown

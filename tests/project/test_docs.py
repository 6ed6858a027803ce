"""The documentation: the site builds without a network and refuses broken links, formulas are drawn, paths exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from m3col.data import catalog
from m3col.methods import registry

REPOSITORY = Path(__file__).resolve().parents[2]
# Files of the project that a page names.
_PATH = re.compile(
    r"\b(?:m3col|tune|jobs|tests|configs|benchmarks|docs|notebooks|examples)/[\w./-]*\.(?:py|ya?ml|md|png|ipynb)\b"
)
_FETCHED = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|url\(|@import )["']?(?:https?:)?//[^"' )>]+""")


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(target)]
    # A proxy that nobody answers: what asks for the network fails.
    environment = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_every_page_is_built_and_fetches_nothing(site):
    pages = {path.relative_to(REPOSITORY / "docs").with_suffix("") for path in (REPOSITORY / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert {Path("results/index") if page == Path("results/README") else page for page in pages} <= built
    texts = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert [(path, urls) for path in texts if (urls := _FETCHED.findall(path.read_text(encoding="utf-8")))] == []


def test_every_formula_is_drawn(site):
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "methods").glob("*.md"))
    drawn = "".join(path.read_text(encoding="utf-8") for path in (site / "methods").glob("*.html"))
    assert sources.count("$$") > 20
    assert drawn.count('display="block"') == sources.count("$$") / 2
    assert "arithmatex" not in drawn and "$$" not in drawn
    assert [
        text for text in re.findall(r"<math.*?</math>", drawn) if "\\" in text or re.search(r"<mi>&(amp;)?</mi>", text)
    ] == []


def test_the_api_pages_show_arguments_of_every_public_name(site):
    shown = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    import m3col
    import m3col.losses
    import tune

    names = {*m3col.__all__, *tune.__all__, *m3col.losses.__all__} - {"BadInput"}  # the old name of InputError
    ids = set(re.findall(r'id="((?:m3col|tune)\.[\w.]+)"', shown))
    assert names - {name.rpartition(".")[2] for name in ids} == set()
    assert "<blockquote>" not in shown  # what an example of a docstring becomes that is not read as code


def test_each_broken_link_fails_the_build(tmp_path):
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    shutil.copy(REPOSITORY / "mkdocs.yml", tmp_path)
    for package in ("m3col", "tune"):
        (tmp_path / package).symlink_to(REPOSITORY / package)
    with open(tmp_path / "docs" / "start.md", "a", encoding="utf-8") as page:
        page.write("\n[x](no_page.md) [x](protocol.md#no-anchor) ![x](no_image.png)\n")
    done = build(tmp_path, tmp_path / "site")
    output = done.stdout + done.stderr
    assert done.returncode == 1 and "3 warnings in strict mode" in output
    assert [name for name in ("no_page.md", "no-anchor", "no_image.png") if name not in output] == []


def test_named_files_exist():
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    named = {(str(page), name) for page in pages for name in _PATH.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert sorted((page, name) for page, name in named if not (REPOSITORY / name).exists()) == []


def test_folders_of_runs_are_named_as_a_training_names_them():
    """By data set, method and number."""
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    named = [name for page in pages for name in re.findall(r"\bruns/train/([\w-]+)", page.read_text(encoding="utf-8"))]
    known = re.compile(rf"({'|'.join(catalog.names())})-({'|'.join(registry.TABLE)})-\d+")
    assert len(named) > 1 and [name for name in named if not known.fullmatch(name)] == []


def test_make_docs_is_a_target():
    done = subprocess.run(["make", "--dry-run", "docs"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "mkdocs build" in done.stdout


def test_the_readme_is_short_and_its_make_targets_exist():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(readme.encode()) <= 4000
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = readme + (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"(?:^|`)make ([a-z-]+)", pages, re.MULTILINE)} - targets == set()


def test_relative_links_of_the_pages_beside_the_site_lead_somewhere():
    for page in REPOSITORY.glob("*.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (REPOSITORY / link).exists()] == [], page


def test_every_method_has_a_page_with_its_settings_and_their_defaults():
    nav = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    for name, method in registry.TABLE.items():
        page = (REPOSITORY / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
        assert f"methods/{name}.md" in nav and f"method={name}" in page
        assert [key for key in method.keys if f"`{key}`" not in page] == []
        defaults = {f"objective.{key}": field.default for key, field in method.settings.model_fields.items()}
        for key in method.keys & {key for key, default in defaults.items() if type(default) is float}:
            row = next(line for line in page.splitlines() if line.startswith(f"| `{key}`"))
            assert f"| {defaults[key]:g} |" in row, row

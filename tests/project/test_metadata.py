"""Licence, citation and changelog agree with the package."""

import tomllib
from importlib import metadata
from pathlib import Path

import yaml

import m3col

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_licence_is_the_one_that_is_declared():
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    assert text.split("\n", 3)[1].strip() == "Apache License" and "END OF TERMS AND CONDITIONS" in text


def test_citation_and_changelog_know_the_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (m3col.__version__, PROJECT["license"])
    assert citation["references"][0]["url"] == "https://arxiv.org/abs/2409.17777"
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.index("## [Unreleased]") < changelog.index(f"## [{m3col.__version__}] - ")


def test_type_information_is_marked():
    packages = [REPOSITORY / name for name in ("m3col", "tune", "jobs")]
    assert [package for package in packages if not (package / "py.typed").exists()] == []


def test_what_builds_the_site_is_pinned():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    packages = {"mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python", "latex2mathml"}
    assert {name: metadata.version(name) for name in packages} == {name: pinned.get(name) for name in packages}


def test_the_hooks_before_a_commit_are_local():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} == {"ruff", "ruff-format", "mypy"}

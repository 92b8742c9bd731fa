"""What the documentation says of pages, commands, files and numbers is so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import mnemoscope
from mnemoscope import cli

ROOT = Path(mnemoscope.__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(item)


def test_the_menu_names_every_page_once() -> None:
    named = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(named) == sorted(file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md"))


def test_the_page_of_commands_names_every_command() -> None:
    root: Any = typer.main.get_command(cli.app)
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "commands.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(root.commands)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)", README))
def test_readme_links_to_what_is_there(target: str) -> None:
    assert (ROOT / target).exists()


def test_readmes_result_is_that_of_its_page() -> None:
    """Every percentage with an interval stands so in the table that is linked, for the growing decoder."""
    section = README.split("## One result")[1].split("\n## ")[0]
    section = re.sub(r"\s", " ", section)
    (page,) = re.findall(r"\((docs/results/[\w-]+\.md)\)", section)
    table = re.sub(r"\s", " ", (ROOT / page).read_text(encoding="utf-8").split("## Decoder `growing`")[1])
    quoted = re.findall(r"[\d.]+ % \([\d.]+ to [\d.]+ %\)", section)
    assert len(quoted) == 3
    for number in quoted:
        assert f"| {number} <sub>" in table


def test_readmes_windows_are_those_of_their_page() -> None:
    section = README.split("## Whose loss is it?")[1].split("\n## ")[0]
    (page,) = re.findall(r"\((docs/results/[\w-]+\.md)\)", section)
    table = (ROOT / page).read_text(encoding="utf-8").split("## Read by algebra")[1].split("\n## ")[0]
    quoted = re.findall(r"\d+ of \d+", section)
    assert len(quoted) == 2
    for number in quoted:
        assert f"| **{number}** (" in table


def test_readmes_share_that_is_certainly_lost_is_that_of_its_page() -> None:
    section = re.sub(r"\s", " ", README.split("## What is lost for certain?")[1].split("\n## ")[0])
    (page,) = re.findall(r"\((docs/results/[\w-]+\.md)\)", section)
    (number,) = re.findall(r"[\d.]+ % \([\d.]+ to [\d.]+ %\)", section)
    assert f"**{number}**" in re.sub(r"\s", " ", (ROOT / page).read_text(encoding="utf-8"))


def test_readmes_command_of_tests_is_what_is_run() -> None:
    assert "\nmake test " in README
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").endswith("\nmake test\n")


def test_the_citation_is_whole() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(said)
    assert said["version"] == mnemoscope.__version__
    assert "arXiv:2512.15653" in str(said["references"])

"""Every block of code in README and docs/ runs as it stands, in a folder with a stranger's files, or says why not.

A block is marked by ``<!-- not run: REASON -->`` in the line above it.  The files: my.txt, texts.jsonl (id, text,
genre), train.jsonl, spans.jsonl, and my-model, a tiny random one whose tokens are bytes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import small
from typer.testing import CliRunner

import mnemoscope
from mnemoscope import cli, config, pipeline
from mnemoscope.rundir import RunDir

PACKAGE = Path(mnemoscope.__file__).parent
ROOT = PACKAGE.parent
#: read by a stranger; results and the notebook are records of what was run
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "notebook.md"]
LANGUAGES = {"sh", "python", "toml", "text"}
REASON = re.compile(r"<!-- not run: (\S.*) -->")
#: what is enough to make a study of a part of one
BASE: dict[str, Any] = {
    "name": "part",
    "seed": 0,
    "model": {"name": "mamba-nano"},
    "windows": {"lengths": [4]},
    "text": {"measure": [{"path": "texts.jsonl"}]},
}
DECODER: dict[str, Any] = {"name": "d", "recipe": "growing", "seeds": [0], "conditions": ["memory", "none"]}
DECODER |= {"tokens": 100, "batch_tokens": 10, "optimiser": {"learning_rate": 1e-3}}


#: commands that ran
RAN: list[list[str]] = []


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str
    reason: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line == "```":
            marked = REASON.fullmatch(lines[start - 1]) if start else None
            text = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(page.name, start + 1, lines[start][3:], text, marked[1] if marked else ""))
            start = None
    assert start is None, f"{page.name}: a block that does not end"
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(language: str) -> list[Any]:
    return [pytest.param(b, id=b.where) for b in BLOCKS if b.language == language and not b.reason]


def test_blocks_say_what_they_are() -> None:
    assert {b.language for b in BLOCKS} <= LANGUAGES, [b.where for b in BLOCKS if b.language not in LANGUAGES]
    assert len(of("sh")) > 5
    assert len(of("python")) > 5
    assert len(of("toml")) > 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder: files, the runs that pages speak of, and the study of the guide, run."""
    place = tmp_path_factory.mktemp("stranger")
    small.model(place / "my-model")
    small.text(place / "train.jsonl", seed=1)
    lines = small.text(place / "in.jsonl", 24, words=14).read_text(encoding="utf-8").splitlines()
    texts = [f"{json.loads(line)['text']} in {n}05" for n, line in enumerate(lines, 1)]
    with (place / "texts.jsonl").open("w") as out, (place / "spans.jsonl").open("w") as spans:
        for n, text in enumerate(texts):
            record = {"id": f"d{n}", "text": f"{text} {text}", "genre": ("news", "fiction")[n % 2]}
            out.write(json.dumps(record) + "\n")
            for found in re.finditer(r"\d+|sea|Ada", record["text"]):
                label = "number" if found[0].isdigit() else "name"
                span = {"doc_id": f"d{n}", "char_start": found.start(), "char_end": found.end(), "label": label}
                spans.write(json.dumps(span) + "\n")
    (place / "my.txt").write_text(
        "The board met on 3 May 2024 and paid 4,210 euros to Ada Lovelace for the roof of the hall. "
        "Room 12 stays closed until Monday, said Mr Brown; ask for INV-2024-0031 at the desk.\n"
    )
    (place / "study.toml").write_text(own_question(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MNEMOSCOPE_DATA", raising=False)
        pipeline.run(config.load("study.toml"), "out")
    return place


def own_question() -> str:
    section = (ROOT / "docs/guide.md").read_text(encoding="utf-8").split("## Your question")[1]
    return section.split("```toml\n")[1].split("```")[0]


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MNEMOSCOPE_DATA", raising=False)
    return folder


def test_own_checkpoint_text_and_spans_give_the_whole_page(folder: Path) -> None:
    assert len(own_question().splitlines()) < 25
    assert f"```toml\n{own_question()}```" in (ROOT / "README.md").read_text(encoding="utf-8")
    page = (folder / "out/report.html").read_text(encoding="utf-8")
    effects = RunDir.open(folder / "out").table("effects")
    assert {"number", "name", "(unlabelled)"} == {*effects["group"], *effects["base"]}
    told = effects.filter(pl.col("low").is_finite())
    assert {"plain", "adjusted", "prior", "share"} == set(told["kind"])
    for word in ("number", "name", "adjusted", "information kept"):
        assert word in page


@pytest.mark.parametrize("block", of("sh"))
def test_commands_run(block: Block, there: Path) -> None:
    """Each line is a command of ours; those before it on the page have run, as one who reads it would have."""
    text = block.text.replace("\\\n", " ")
    commands = [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]
    assert commands
    for words in commands:
        if words in RAN:  # the same on another page
            continue
        RAN.append(words)
        if words[0] in (".", "source"):  # the environment, which is active here
            continue
        assert words[0] == "mnemoscope", f"{block.where}: mark the block, or put what is not ours into one of its own"
        done = CliRunner().invoke(cli.app, words[1:])
        assert done.exit_code == 0, f"{shlex.join(words)}: {done.output} {done.exception!r}"
        if "--out" in words:
            out = there / words[words.index("--out") + 1]
            assert any(out.glob("*.html")) or any(out.glob("*.parquet")), f"{shlex.join(words)} made nothing"
            if words[1] == "measure" and out.name == "text":
                # what commands.md compares it with
                shutil.copytree(out, out.with_name("text-again"), dirs_exist_ok=True)


def example(block: Block) -> Path | None:
    """The file of the package that a block is to become, by its first line."""
    found = re.match(r"# (mnemoscope/\S+\.py)\n", block.text)
    return Path(found[1]) if found else None


PYTHON = of("python")


@pytest.mark.parametrize("block", [p for p in PYTHON if not example(p.values[0]) and "--8<--" not in p.values[0].text])
def test_python_runs(block: Block, there: Path) -> None:
    exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", of("toml"))
def test_studies_are_studies(block: Block, there: Path) -> None:
    """A whole one is loaded; of a part what is missing is supplied."""
    values = tomllib.loads(block.text)
    if "even_layers" in block.text:
        return  # with the files of that page, below
    if {"name", "seed"} <= set(values):
        (there / "documented.toml").write_text(block.text, encoding="utf-8")
        config.load("documented.toml")
        return
    if not set(values) <= set(config.Study.model_fields):
        values = {"decoders": [DECODER | values]}
    decoders = [
        {k: v for k, v in (DECODER | d).items() if d.get("recipe") != "trained" or k in d}
        for d in values.get("decoders", [])
    ]
    for corpora in values.get("text", {}).values():
        assert all("path" in c for c in corpora)
    config.Study.model_validate(BASE | values | {"decoders": decoders})


USED = """
def test_all_of_them_in_one_study(monkeypatch):
    from mnemoscope import config, pipeline
    monkeypatch.chdir({folder!r})
    run = pipeline.run(config.load("added.toml"), "added", until="estimate")
    estimates = run.table("estimates")
    assert "shouted" in set(estimates.filter(by="shouting")["group"])
    assert "sure" in set(estimates["metric"])
    assert {{"memory", "none", "even_layers"}} == set(estimates["condition"])
"""


def test_files_that_the_page_adds_keep_the_contracts(there: Path, tmp_path: Path) -> None:
    """A copy of the package with the page's files in it, tried by the contract tests and by one study."""
    shutil.copytree(PACKAGE, tmp_path / "mnemoscope", copy_function=os.symlink, ignore=lambda *_: {"__pycache__"})
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=lambda *_: {"__pycache__"})
    added = [(path, block) for block in BLOCKS if (path := example(block))]
    assert len(added) == 5
    for path, block in added:
        assert not (ROOT / path).exists()
        (tmp_path / path).write_text(block.text, encoding="utf-8")
    (study,) = [b.text for b in BLOCKS if b.language == "toml" and "even_layers" in b.text and "name =" in b.text]
    texts = [json.dumps({"id": f"d{n}", "text": f"THE SEA was calm {n}"}) for n in range(4)]
    (there / "texts-added.jsonl").write_text("\n".join(texts))
    # the copy's own kernels would be compiled first
    study = 'compute = { device = "cpu", scan = "reference" }\n' + study.replace("texts.jsonl", "texts-added.jsonl")
    (there / "added.toml").write_text(study, encoding="utf-8")
    (tmp_path / "tests/test_used.py").write_text(USED.format(folder=str(there)), encoding="utf-8")
    names = [path.stem for path, _ in added]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA"),
            # a family is tried with one architecture
            *(
                "tests/contracts",
                "tests/test_used.py",
                "-k",
                f"({' or '.join([*names, 'all_of_them'])}) and not mamba2",
            ),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for name in (*names, "all_of_them"):
        assert any(name in line for line in passed), f"nothing tried {name}"

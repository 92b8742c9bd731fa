"""The study of README's section on one's own question, run as it stands there by a stranger in an empty folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
import small

import mnemoscope
from mnemoscope import config, pipeline

README = Path(mnemoscope.__file__).parent.parent / "README.md"


def test_own_checkpoint_text_and_spans_give_the_whole_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text(encoding="utf-8").split("## Ask your own question")[1]
    study = section.split("```toml\n")[1].split("```")[0]
    assert len(study.splitlines()) < 25
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNEMOSCOPE_DATA", raising=False)
    Path("study.toml").write_text(study, encoding="utf-8")
    small.model(Path("my-model"))
    small.text(Path("train.jsonl"), seed=1)
    lines = small.text(Path("in.jsonl"), 40).read_text(encoding="utf-8").splitlines()
    texts = [f"{json.loads(line)['text']} in {n}05" for n, line in enumerate(lines, 1)]
    with Path("texts.jsonl").open("w") as out, Path("spans.jsonl").open("w") as spans:
        for n, text in enumerate(texts):
            out.write(json.dumps({"id": f"d{n}", "text": f"{text} {text}"}) + "\n")
            for found in re.finditer(r"\d+|sea|Ada", f"{text} {text}"):
                label = "number" if found[0].isdigit() else "name"
                span = {"doc_id": f"d{n}", "char_start": found.start(), "char_end": found.end(), "label": label}
                spans.write(json.dumps(span) + "\n")

    run = pipeline.run(config.load("study.toml"), "out")
    page = Path("out/report.html").read_text(encoding="utf-8")
    effects = run.table("effects")
    assert {"number", "name", "(unlabelled)"} == {*effects["group"], *effects["base"]}
    told = effects.filter(pl.col("low").is_finite())
    assert {"plain", "adjusted", "prior", "share"} == set(told["kind"])
    for word in ("number", "name", "adjusted", "information kept"):
        assert word in page

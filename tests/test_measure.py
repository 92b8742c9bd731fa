"""What ``mnemoscope measure`` asks for as a study, and what it refuses; tests/e2e/test_documented.py makes pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mnemoscope
from mnemoscope import cli, config, zoo
from mnemoscope.errors import ConfigError, ModelError, TextError
from mnemoscope.request import Measure

TRAINING: dict[str, Any] = {"train": ["t.txt"], "tokens": 1000, "learning_rate": 1e-3, "lengths": "4,8"}


def study(**asked: Any) -> config.Study:
    return Measure(**({"model": "mamba-nano", "files": ["a.txt"], "tokens_per_length": 64} | asked)).study()


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # 16 words: 16 tokens at least, and fewer than 32
    Path("a.txt").write_text("one two three four " * 4)
    Path("t.txt").write_text("five six seven eight " * 4)
    return tmp_path


def test_the_shipped_decoder_at_the_lengths_that_the_text_has(texts: Path) -> None:
    made = study()
    assert made.windows is not None
    # it knows 4 to 256
    assert made.windows.lengths == [4, 8, 16]
    (decoder,) = made.decoders
    assert (decoder.recipe, decoder.weights, decoder.seeds) == ("trained", "mamba-nano", [0])
    assert decoder.conditions == ["memory", "none"]
    assert [a.kind for a in made.annotations] == ["names", "numbers"]
    assert made.estimate.by == ["source", "position", "names", "numbers"]
    assert made.text.measure[0].path == str(texts / "a.txt")


def test_lengths_that_are_asked_for_are_left_as_they_are(texts: Path) -> None:
    made = study(lengths="8,64", kinds=["numbers"], domain="genre")
    assert made.windows is not None
    assert made.windows.lengths == [8, 64]
    assert made.estimate.by == ["domain", "position", "numbers"]


def test_a_text_too_short_for_all_of_them_is_the_runs_to_refuse(texts: Path) -> None:
    Path("a.txt").write_text("one two")
    assert study().windows == study(lengths="4,8,16,32,64,128,256").windows
    Path("a.txt").unlink()
    with pytest.raises(TextError, match=r"a\.txt"):
        study()


def test_a_decoder_is_trained_where_a_budget_is_named(texts: Path) -> None:
    for model in ("mamba-nano", "my-model"):
        (decoder,) = study(model=model, **TRAINING).decoders
        assert (decoder.recipe, decoder.tokens, decoder.seeds) == ("growing", 1000, [0])
        assert decoder.optimiser is not None
        assert decoder.optimiser.learning_rate == 1e-3


@pytest.mark.parametrize("without", ["train", "tokens", "learning_rate", "lengths"])
def test_nothing_of_a_training_has_a_silent_default(without: str, texts: Path) -> None:
    given = {key: value for key, value in TRAINING.items() if key != without}
    with pytest.raises(ConfigError, match=f"--{without.replace('_', '-')} must be given"):
        study(model="my-model", **given)


def test_without_a_decoder_and_a_budget_all_that_is_missing_is_named(texts: Path) -> None:
    with pytest.raises(ConfigError, match=r"--train, --tokens, --learning-rate, --lengths must be given.*--decoder"):
        study(model="my-model")


def test_a_decoder_that_is_given_is_not_trained(texts: Path) -> None:
    folder = zoo.folder() / "mamba-nano/decoders"
    (decoder,) = study(decoder=folder, lengths="4").decoders
    assert decoder.weights == str(folder)
    with pytest.raises(ConfigError, match="--tokens is about training"):
        study(decoder=folder, tokens=5)
    with pytest.raises(ModelError, match="there are none"):
        study(decoder=texts)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"lengths": "4,x"}, "--lengths takes whole numbers .* not '4,x'"),
        ({"lengths": "8,4"}, "lengths must rise"),
        ({"lengths": "64,512"}, "trained on windows of 4 to 256 tokens: what is missing after 512 may be lost to it"),
        ({"lengths": "2,64"}, "after 2 may be lost to it alone"),
        ({"kinds": ["nonsense"], "lengths": "4"}, "no annotation named 'nonsense'"),
        ({"kinds": ["numbers", "numbers"], "lengths": "4"}, "given twice"),
    ],
)
def test_options_without_sense_are_refused(asked: dict[str, Any], said: str, texts: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        study(**asked)


def test_a_bad_option_is_refused_before_anything_is_written(texts: Path) -> None:
    done = CliRunner().invoke(cli.app, ["measure", "my-model", "a.txt", "--out", "page"])
    assert isinstance(done.exception, ConfigError)
    assert not Path("page").exists()


def test_a_text_that_is_not_there_is_refused_before_long_imports(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # an ImportError, though another test may have imported it
    monkeypatch.setitem(sys.modules, "mnemoscope.pipeline", None)
    monkeypatch.delattr(mnemoscope, "pipeline", raising=False)
    done = CliRunner().invoke(cli.app, ["measure", "mamba-nano", "b.txt", "--out", "page", "--lengths", "4"])
    assert isinstance(done.exception, TextError), done.exception
    assert "holds no 'b.txt'. Did you mean" in str(done.exception)
    assert "loading" not in done.stderr
    done = CliRunner().invoke(cli.app, ["measure", "mamba-nano", "a.txt", "--out", "page", "--lengths", "4"])
    assert isinstance(done.exception, ImportError)
    assert "loading the model" in done.stderr


def test_nearly_the_name_of_an_embedded_model_is_not_looked_for_on_a_hub(texts: Path) -> None:
    with pytest.raises(ModelError, match=r"no embedded model is called 'mambanano'\. Did you mean 'mamba-nano'\?"):
        study(model="mambanano")

"""Whatever is wrong with what a user gives is said in one line (what, where, what to do) before anything is trained."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from safetensors.torch import load_file, save_file

from mnemoscope import cli, pipeline, pretraining, rundir
from mnemoscope.memory.architectures import mamba

Spoil = Callable[[Path], Any]
Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("template")
    small.study(made)
    return made


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A study that would run: study.toml, model/, train.jsonl, measure.jsonl."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    small.write(small.values(tmp_path), tmp_path / "study.toml")
    return tmp_path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``mnemoscope ...`` here; its exit code and what it said.  Training fails the test unless it is allowed."""
    fit = pipeline.fit

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("it began to train")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    trainings = {"never": never, "interrupted": interrupted, "allowed": fit}

    def call(*arguments: Any, training: str = "never") -> tuple[int, str]:
        for module in (pipeline, pretraining):
            monkeypatch.setattr(module, "fit", trainings[training])
        monkeypatch.setattr(sys, "argv", ["mnemoscope", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return int(ended.value.code or 0), printed.err

    return call


def refused(command: Command, *arguments: Any, code: int = 2) -> str:
    """The one line of the refusal: ``error <what>. <what to do>``."""
    found, said = command(*arguments)
    lines = [line for line in said.splitlines() if line.startswith("error ")]
    assert found == code, said
    assert len(lines) == 1, said
    assert re.search(r"\. [A-Z\[].+", lines[0]), f"no remedy: {lines[0]}"
    return lines[0]


def change(name: str, function: Callable[[str], str]) -> Spoil:
    """Changes the text of a file, which has to change."""

    def spoil(folder: Path) -> None:
        file = folder / name
        before = file.read_text()
        file.write_text(function(before))
        assert file.read_text() != before

    return spoil


def study(old: str, new: str) -> Spoil:
    return change("study.toml", lambda text: text.replace(old, new, 1))


def line_of(file: Path, text: str, after: str = "") -> int:
    lines = file.read_text().splitlines()
    first = next((n for n, line in enumerate(lines) if after in line), 0)
    return next(n for n, line in enumerate(lines, 1) if text in line and n > first)


def lines_of(name: str, function: Callable[[list[str]], list[str]]) -> Spoil:
    return change(name, lambda text: "".join(function(text.splitlines(keepends=True))))


def config(**values: Any) -> Spoil:
    return change("model/config.json", lambda text: json.dumps(json.loads(text) | values))


def weights(function: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "model" / "model.safetensors"
        held = load_file(file)
        function(held)
        save_file(held, file)

    return spoil


def larger_tokenizer(folder: Path) -> None:
    file = folder / "model" / "tokenizer.json"
    values = json.loads(file.read_text())
    values["model"]["vocab"]["zz"] = 257
    file.write_text(json.dumps(values))


def without(text: str) -> Spoil:
    def spoil(folder: Path) -> None:
        values = small.values(folder)
        small.write(values | {"text": values["text"] | {text: []}}, folder / "study.toml")

    return spoil


def first_only(folder: Path) -> None:
    """One document of one window of 12 tokens."""
    (folder / "measure.jsonl").write_text('{"text": "the sea was calm", "domain": "news"}\n')


CASES = {
    # ---- the study
    "no study": (lambda f: (f / "study.toml").unlink(), "study.toml: no such study. Give the path of a TOML file"),
    "not TOML": (study("seed = 3", "seed = = 3"), r"study.toml:2: not TOML: .* Mend that line"),
    "not UTF-8": (lambda f: (f / "study.toml").write_bytes(b"\xff"), r"study.toml: cannot be read .* Save it as UTF-8"),
    "a key too many": (study("seed = 3", "sead = 3"), r"study.toml:2: unknown key 'sead' .*Did you mean 'seed'\?"),
    "no seed": (study("seed = 3\n", ""), r"study.toml:1: missing key 'seed'. Add it"),
    "a negative seed": (study("seed = 3", "seed = -3"), r"study.toml:2: seed: .*greater than or equal to 0.* Mend"),
    "a number as text": (
        study("resamples = 100", 'resamples = "100"'),
        r"study.toml:\d+: estimate.resamples: .*integer",
    ),
    "no such condition": (
        study('"wrong"', '"worng"'),
        r"study.toml:\d+: .*no condition named 'worng'. Did you mean 'wrong'",
    ),
    "no such group": (study('"domain", "position"', '"domian"'), r"estimate.by names 'domian', .* There are: domain, "),
    "nothing to measure": (without("measure"), r"nothing to measure: text.measure is empty. Add \[\[text.measure\]\]"),
    "nothing to train on": (without("train"), r"text.train is empty. Add \[\[text.train\]\]"),
    "no such device": (study('device = "cpu"', 'device = "mps"'), r"no device 'mps' here. Use compute.device = 'auto'"),
    # ---- its text
    "no such file": (
        study("measure.jsonl", "mesure.jsonl"),
        r"mesure.jsonl: no such file or folder. .* Did you mean 'measure.jsonl'\?",
    ),
    "no such training text": (
        study("train.jsonl", "trane.jsonl"),
        r"trane.jsonl: no such file .*Did you mean 'train.jsonl'",
    ),
    "an empty file": (
        lambda f: (f / "train.jsonl").write_text(""),
        r"train.jsonl: the file is empty. Put text into it",
    ),
    "a line that is not JSON": (
        lines_of("train.jsonl", lambda x: [*x[:2], x[2][:20] + "\n", *x[3:]]),
        r"train.jsonl:3: not JSON: .* Each line must hold one whole JSON object",
    ),
    "a field too few": (
        lines_of("measure.jsonl", lambda x: [*x[:4], x[4].replace('"domain"', '"kind"'), *x[5:]]),
        r"measure.jsonl:5: no field 'domain' \(the corpus's domain\). Name one of the fields there: text, kind",
    ),
    "not UTF-8 text": (
        lambda f: (f / "train.jsonl").write_bytes((f / "train.jsonl").read_bytes().replace(b"sea", b"s\xe9a", 1)),
        r"train.jsonl:\d+: not UTF-8: byte 0xe9 at byte offset \d+. Convert the file to UTF-8",
    ),
    "the same document twice": (
        change("study.toml", lambda t: t.replace('domain = "domain"', 'domain = "domain"\ndoc_id = "domain"')),
        r"train.jsonl:3: document id 'news' was already given at .*train.jsonl:1. Name a field of unique ids",
    ),
    "every document too short to be measured": (
        lambda f: (f / "measure.jsonl").write_text('{"text": "too short", "domain": "news"}\n' * 9),
        r"no document has 12 tokens; the longest, 'measure.jsonl:1', has 9. Give longer documents",
    ),
    "every document too short to be trained on": (
        lambda f: (f / "train.jsonl").write_text('{"text": "too short", "domain": "news"}\n' * 9),
        r"no training document has 12 tokens; the longest, 'train.jsonl:1', has 9. Give longer documents",
    ),
    "one window has no wrong memory": (
        first_only,
        r"'wrong' needs two windows of a length, there is 1. Measure more text",
    ),
    # ---- its model
    "no such model": (
        lambda f: shutil.rmtree(f / "model"),
        r"model: no such folder. Give a folder that holds config.json",
    ),
    "a model without adapter": (
        config(model_type="gpt2"),
        r"config.json: no adapter for model_type 'gpt2'. There are: .*mamba.* one new file in mnemoscope/memory",
    ),
    "a weight too few": (
        weights(lambda w: w.pop("backbone.layers.1.mixer.D")),
        r"/model': weights do not fit config.json \(1 missing: backbone.layers.1.mixer.D\). Use its own pair",
    ),
    "a weight too many": (
        weights(lambda w: w.update({"backbone.layers.1.mixer.E": torch.ones(2)})),
        r"/model': weights do not fit config.json \(1 surplus: backbone.layers.1.mixer.E\). Use its own pair",
    ),
    "a tokenizer of another model": (
        larger_tokenizer,
        r"has 258 ids, the model '.*' 257 vocabulary rows. Give the token",
    ),
    "a model without tokenizer": (
        lambda f: (f / "model/tokenizer.json").unlink(),
        r"has no tokenizer.json. Give tokenizer =",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_before_training(folder: Path, command: Command, case: str) -> None:
    spoil, told = CASES[case]
    spoil(folder)
    arguments = ("run", folder / "study.toml", "--out", folder / "out")
    said = refused(command, *arguments)
    assert re.search(told, said), said
    if (folder / "out").exists():
        left = {p.name for p in (folder / "out").iterdir()}
        assert left <= {"study.toml", "manifest.json", "cache"}, left


def test_unknown_keys_are_found_on_their_line(folder: Path, command: Command) -> None:
    """In the second of two alike tables, and inside it."""
    file = folder / "study.toml"
    study('recipe = "fixed"\n', 'recipe = "fixed"\ngrowht = 0.5\n')(folder)
    said = refused(command, "run", file, "--out", folder / "out")
    assert f"study.toml:{line_of(file, 'growht')}: unknown key 'decoders.1.growht'. Did you mean 'growth'?" in said
    study("growht = 0.5\n", "")(folder)
    change("study.toml", lambda t: "clipp".join(t.rsplit("clip", 1)))(folder)
    said = refused(command, "run", file, "--out", folder / "out")
    assert (
        f"study.toml:{line_of(file, 'clipp')}: unknown key 'decoders.1.optimiser.clipp'. Did you mean 'clip'?" in said
    )
    assert not (folder / "out").exists()


def test_short_documents_are_counted_and_the_run_goes_on(folder: Path, command: Command) -> None:
    lines_of("measure.jsonl", lambda x: [*x, '{"text": "too short", "domain": "news"}\n'])(folder)
    code, said = command("run", folder / "study.toml", "--out", folder / "out", "--until", "prepare")
    assert code == 0
    assert "1 of 9 documents are shorter than 12 tokens and give no window of that length" in said
    accounts = {a["length"]: a for a in json.loads((folder / "out" / "manifest.json").read_text())["windows"]}
    assert accounts[12]["shorter"] == 1
    assert accounts[4]["shorter"] == 0


def test_a_mended_study_takes_the_same_folder(folder: Path, command: Command) -> None:
    arguments = ("run", folder / "study.toml", "--out", folder / "out", "--until", "prepare")
    study("measure.jsonl", "mesure.jsonl")(folder)
    refused(command, *arguments)
    study("mesure.jsonl", "measure.jsonl")(folder)
    study("resamples = 100", "resamples = 90")(folder)
    assert command(*arguments)[0] == 0
    assert "resamples = 90" in (folder / "out" / "study.toml").read_text()


def test_a_memory_that_does_not_carry(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = mamba.ARCHITECTURE.hidden
    monkeypatch.setattr(mamba.ARCHITECTURE, "hidden", lambda self, ids, start: hidden(self, ids, None))
    for arguments in (("run", folder / "study.toml", "--out", folder / "out"), ("inspect", folder / "model")):
        said = refused(command, *arguments, code=3)
        assert re.search(r"/model': reading in two pieces differs from reading at once in layers\.0\.", said)


def test_brackets_are_shown(folder: Path, command: Command) -> None:
    """The message is not read as markup, in which [/bold] would end what never began."""
    said = refused(command, "run", folder / "[bold]x[/italic].toml", "--out", folder / "out")
    assert "[bold]x[/italic].toml: no such study" in said


# ---- room -----------------------------------------------------------------------------------------------------------


def test_too_little_room_is_told_before_work(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(rundir.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    said = refused(command, "run", folder / "study.toml", "--out", folder / "out")
    assert re.search(r"out: about 0\.\d GB are needed here and 0\.0 GB are free. Free some disk, or give --out", said)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB; ``mount -o remount,size=`` makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up(folder: Path, disk: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every size the command says so and stops; with room enough it goes on and ends."""
    monkeypatch.setattr(rundir.RunDir, "require_room", lambda self, needed: None)  # it was free when it was asked
    arguments = ("run", folder / "study.toml", "--out", disk / "out")
    stages = set()
    for size in (100, 200, 300, 400, 600):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
        code, said = command(*arguments, training="allowed")
        assert code == 2
        assert re.search(r"error .*disk/out.*: .*([Nn]o space left on).*\. [A-Z]", said), said
        done = json.loads((disk / "out" / "manifest.json").read_text())["stages"]
        stages.add(max(pipeline.STAGES.index(name) for name in done))
    assert len(stages) > 1, "all sizes ended in one stage"
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert command(*arguments, training="allowed")[0] == 0
    assert not list((disk / "out").rglob("*.new"))


# ---- run folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(folder: Path, command: Command) -> Path:
    """A run that is as far as a decoder of its study."""
    assert command("run", folder / "study.toml", "--out", folder / "out", "--until", "prepare")[0] == 0
    (folder / "out" / "checkpoints").mkdir()
    return folder / "out"


def test_a_folder_of_another_study(folder: Path, begun: Path, command: Command) -> None:
    study("seed = 3", "seed = 4")(folder)
    said = refused(command, "run", folder / "study.toml", "--out", begun)
    assert "out/manifest.json: this folder holds another study ('small', or an older version of this one). Give" in said
    assert "seed = 3" in (begun / "study.toml").read_text()


def test_another_device_and_folder_are_no_other_study(folder: Path, begun: Path, command: Command) -> None:
    (folder / "elsewhere").mkdir()
    for name in ("train.jsonl", "measure.jsonl"):
        shutil.move(folder / name, folder / "elsewhere" / name)
    study('device = "cpu"', 'device = "auto"')(folder)
    arguments = ("run", folder / "study.toml", "--out", begun, "--until", "prepare", "--data", folder / "elsewhere")
    assert command(*arguments)[0] == 0
    assert "elsewhere/train.jsonl" in (begun / "study.toml").read_text()


def test_a_folder_that_is_no_run(folder: Path, command: Command) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "study.toml").write_text("mine")
    said = refused(command, "run", folder / "study.toml", "--out", folder / "mine")
    assert "mine: this folder is not empty and holds no run. Give a new folder" in said
    assert (folder / "mine" / "study.toml").read_text() == "mine"
    said = refused(command, "run", folder / "study.toml", "--out", folder / "train.jsonl")
    assert "train.jsonl: this is a file. Give a folder for the run" in said
    for stage in ("train", "reconstruct", "score", "estimate", "report"):
        said = refused(command, stage, folder / "mine")
        assert "mine: this is no run folder: it has no manifest.json. Make one with: mnemoscope run" in said


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"study": "x", "name": "y", "stages": []}', "\udcff"])
def test_a_damaged_manifest(folder: Path, begun: Path, command: Command, content: str) -> None:
    (begun / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    for arguments in (("run", folder / "study.toml", "--out", begun), ("train", begun)):
        said = refused(command, *arguments)
        assert re.search(r"out/manifest.json: damaged manifest \(.+\). Remove the folder and run anew", said), said


def test_a_stage_before_its_time(begun: Path, command: Command) -> None:
    assert re.search(
        r"no decoder for condition 'memory', seed 0, 4 tokens. Train it first", refused(command, "reconstruct", begun)
    )
    assert re.search("out/decoded: .* Run the stage reconstruct again", refused(command, "score", begun))
    assert "tokens.parquet: the table is missing. Run the stages before" in refused(command, "estimate", begun)
    assert "no table 'estimates' yet. Run the stages before" in refused(command, "report", begun)


def test_no_such_stage_and_no_such_decoder(folder: Path, begun: Path, command: Command) -> None:
    said = refused(command, "run", folder / "study.toml", "--out", begun, "--until", "scoring")
    assert "there is no stage 'scoring'. There are: prepare, train, " in said
    for stage in ("train", "reconstruct"):
        said = refused(command, stage, begun, "--only", "growing/seed-00")
        assert "no decoder is called 'growing/seed-00'. There are: growing/seed-0/memory" in said


CHANGED = {
    "training text": (lines_of("train.jsonl", lambda x: x[:-1]), "the inputs of this run changed since it was begun"),
    "measured text": (change("measure.jsonl", lambda t: t.replace("sea", "see", 1)), "the inputs of this run changed"),
    "model": (weights(lambda w: w["backbone.norm_f.weight"].add_(1)), "the encoder of this run changed"),
}


@pytest.mark.parametrize("what", CHANGED)
@pytest.mark.parametrize("stage", ["run", "train", "reconstruct"])
def test_what_changed_between_two_starts(folder: Path, begun: Path, command: Command, what: str, stage: str) -> None:
    spoil, told = CHANGED[what]
    spoil(folder)
    arguments = ("run", folder / "study.toml", "--out", begun) if stage == "run" else (stage, begun)
    said = refused(command, *arguments)
    assert told in said
    assert "Restore them, or give another --out" in said


# ---- decoders trained before ----------------------------------------------------------------------------------------


def trained(folder: Path, **changes: Any) -> Path:
    """A study that measures decoders of an earlier run, of which there is only what they are checked by."""
    decoder = {
        "name": "old",
        "recipe": "trained",
        "seeds": [0],
        "conditions": ["memory"],
        "weights": str(folder / "old"),
    }
    (folder / "old" / "seed-0").mkdir(parents=True)
    return small.write(small.values(folder, decoders=[decoder | changes]), folder / "study.toml")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: None, r"no trained decoders at '.*/old'. Give an embedded name"),
        (lambda f: (f / "old/decoder.json").write_text("{"), r"old/decoder.json: damaged .* Train"),
        (
            lambda f: (f / "old/decoder.json").write_text('{"encoder": "x", "lengths": [0], "seeds": [0]}'),
            r"old/decoder.json: damaged \(lengths.0: Input should be greater than 0",
        ),
        (
            lambda f: (f / "old/decoder.json").write_text('{"encoder": "x", "lengths": [4], "seeds": [0]}'),
            r"decoder.json: these decoders were trained for another",
        ),
    ],
)
def test_trained_decoders_that_do_not_fit(folder: Path, command: Command, spoil: Spoil, told: str) -> None:
    file = trained(folder)
    spoil(folder)
    assert re.search(told, refused(command, "run", file, "--out", folder / "out"))


def test_trained_decoders_that_are_not_there_or_damaged(
    folder: Path, begun: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = json.loads((begun / "manifest.json").read_text())["encoder"]
    file = trained(folder)
    (folder / "old" / "decoder.json").write_text(json.dumps({"encoder": encoder, "lengths": [6, 9], "seeds": [0]}))
    said = refused(command, "run", file, "--out", folder / "other")
    assert "decoder old was trained on windows of 6 to 9 tokens: what is missing after 4, 12 may" in caplog.text
    assert "old/seed-0/memory.safetensors: no decoder for condition 'memory', seed 0, 4 tokens. Train it first" in said
    (folder / "old" / "seed-0" / "memory.safetensors").write_bytes(b"cut short")
    said = refused(command, "run", file, "--out", folder / "other")
    assert re.search(r"old/seed-0/memory.safetensors: not weights that we read .*. Fetch or train them again", said)


# ---- pretraining ----------------------------------------------------------------------------------------------------

PRETRAIN = {
    "two tokenizers": (
        study("context = 16", 'context = 16\ntokenizer = "mamba-nano"'),
        r"pretrain: a tokenizer that exists is taken as it is: leave out vocabulary",
    ),
    "no such architecture": (study('"mamba"', '"mambo"'), r"no memory named 'mambo'. Did you mean 'mamba'\?"),
    "no such size": (study("state_size", "state_sise"), r"pretrain.shape: MambaConfig has no state_sise. See"),
    "a size of the wrong kind": (study("hidden_size = 16", "hidden_size = 1.5"), r"pretrain.shape: .*hidden_size"),
    "too few tokens to make": (
        study("vocabulary = 270", "vocabulary = 256"),
        r"study.toml:\d+: pretrain.vocabulary: .*257|256",
    ),
    "too long a context": (
        study("context = 16", "context = 9999"),
        r"a context of 9999 tokens does not fit into text.train",
    ),
    "too long for the held-out text": (
        lambda f: (f / "measure.jsonl").write_text('{"text": "the sea", "domain": "news"}\n'),
        r"a context of 16 tokens does not fit into the longest document of text.measure, 'measure.jsonl:1'.* Give more",
    ),
    "nothing to pretrain": (
        change("study.toml", lambda t: t.split("[pretrain]")[0]),
        r"this study cannot pretrain. It needs \[pretrain\], ",
    ),
    "no such text": (study("train.jsonl", "trane.jsonl"), r"trane.jsonl: no such file or folder"),
}


@pytest.mark.parametrize("case", PRETRAIN)
def test_pretraining_refused_before_it_begins(folder: Path, command: Command, case: str) -> None:
    small.write(small.pretraining(folder), folder / "study.toml")
    spoil, told = PRETRAIN[case]
    spoil(folder)
    said = refused(command, "pretrain", folder / "study.toml", "--out", folder / "out")
    assert re.search(told, said), said


@pytest.mark.parametrize("which", ["train", "measure"])
def test_pretraining_notices_a_changed_text(folder: Path, command: Command, which: str) -> None:
    small.write(small.pretraining(folder), folder / "study.toml")
    arguments = ("pretrain", folder / "study.toml", "--out", folder / "out")
    code, said = command(*arguments, training="interrupted")
    assert code == 130
    assert "interrupted; the same command goes on from here" in said
    lines_of(f"{which}.jsonl", lambda x: x[:-1])(folder)
    assert "the inputs of this run changed since it was begun. Restore them" in refused(command, *arguments)


def test_the_installed_command_says_the_same(folder: Path) -> None:
    executable = Path(sys.executable).with_name("mnemoscope")
    done = subprocess.run(
        [executable, "run", folder / "nothing.toml", "--out", folder / "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "40"},
    )
    assert done.returncode == 2
    assert done.stderr == f"error {folder}/nothing.toml: no such study. Give the path of a TOML file\n"
    assert done.stdout == ""

"""Study files: what is written comes back, what decides the numbers decides the digest, what is wrong has a line."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import mnemoscope
from mnemoscope import config
from mnemoscope.config.change import change
from mnemoscope.config.dump import bare
from mnemoscope.errors import ConfigError

ROOT = Path(mnemoscope.__file__).parent.parent
STUDIES = sorted([*ROOT.glob("studies/**/*.toml"), *ROOT.glob("mnemoscope/zoo/studies/*.toml")])

OPTIMISER = """method = "muon", learning_rate = 1e-3, warmup = 0.1, schedule = "constant", final = 0.5, \
weight_decay = 0.1, betas = [0.8, 0.9], clip = 2.0"""

#: every key of every section is in it somewhere
FULL = f"""# a comment
name = "full"
seed = 11

[model]
name = "owner/model"
revision = "main"
tokenizer = "owner/tokenizer"
dtype = "bfloat16"

[compute]
device = "cpu"
mixed_precision = "bf16"
scan = "reference"
batch_tokens = 4096
track = "tensorboard"

[[text.train]]
path = "a/train.jsonl"
text = "body"
doc_id = "id"
domain = "domain"
source = "source"
dialect = "dialect"
weight = 2.5
where = {{ language = "en", "kind of text" = "news" }}

[[text.train]]
dataset = "owner/texts"
dataset_config = "en"
split = "train"
dataset_files = "train/*.parquet"
first = 1000
tokens = "words"
space_after = "spaces"
domain_name = "news"
dialect_name = "en-GB"
pair = "pair"

[[text.measure]]
path = "a/measure.jsonl"
tokens = "words"
records_per_document = 20

[windows]
lengths = [4, 16]
tokens_per_length = 1000
prefix = "bos"
nested = true

[[decoders]]
name = "one"
recipe = "growing"
family = "bridged"
options = {{ rank = 8 }}
seeds = [0, 1]
conditions = ["memory", "none"]
lengths = [16]
tokens = 5000
batch_tokens = 64
growth = 0.25
shares = [2.0]
balance = 0.75
checkpoint_every = 7
optimiser = {{ {OPTIMISER} }}
evaluate = {{ tokens = 100, times = 3, first = 0.1 }}

[[decoders]]
name = "two"
recipe = "trained"
weights = "mamba-nano"
seeds = [0]
lengths = [16]
conditions = ["wrong"]

[[decoders]]
name = "three"
recipe = "trained"
of = "two"
search = "beam:4"
seeds = [0]
lengths = [16]
conditions = ["wrong"]

[[annotations]]
name = "kinds"
kind = "fields"
argument = "spans"
domains = ["news"]
labels = {{ NNP = "noun", "." = "" }}

[estimate]
guesses = "one"
by = ["domain", "kinds"]
confidence = 0.9
resamples = 300
position_bins = 4

[[effects]]
by = "kinds"
metrics = ["omission_in_place"]
base = "noun"
controls = ["surprisal"]
words = "kinds"
sentences = "untrained"

[report]
texts = false

[pretrain]
architecture = "mamba2"
vocabulary = 512
tokenizer_bytes = 10000
context = 32
tokens = 100000
batch_tokens = 320
checkpoint_every = 3
held_out_tokens = 999
optimiser = {{ {OPTIMISER} }}

[pretrain.shape]
hidden_size = 16
initializer_range = 0.5
tie_word_embeddings = true
hidden_act = "silu"
"""


def load(content: str, folder: Path) -> config.Study:
    file = folder / "study.toml"
    file.write_text(content, encoding="utf-8")
    return config.load(file)


def models(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from models(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from models(item)


# ---- there and back -------------------------------------------------------------------------------------------------


def test_the_full_study_uses_every_key(tmp_path: Path) -> None:
    used: dict[type[BaseModel], set[str]] = {}
    # control text has no annotations
    control = 'name = "control"\nseed = 0\n[[text.measure]]\npath = "a.jsonl"\ncontrol = "shuffled"\n'
    for model in models([load(FULL, tmp_path), load(control, tmp_path)]):
        used.setdefault(type(model), set()).update(model.model_fields_set)
    sections = {c for c in vars(config).values() if isinstance(c, type) and issubclass(c, config.Section)}
    assert used.keys() == sections - {config.Section}
    # it learns its tokenizer, and so names none
    used[config.Pretrain].add("tokenizer")
    for section, keys in used.items():
        assert keys == set(section.model_fields), section.__name__


def test_studies_are_there() -> None:
    assert {"nano", "pretrain-nano", "demo"} <= {f.stem for f in STUDIES}


@pytest.mark.parametrize("file", STUDIES, ids=lambda f: f.stem)
def test_every_study_comes_back(file: Path, tmp_path: Path) -> None:
    study = config.load(file)
    again = load(config.dump(study), tmp_path)
    assert again == study
    assert again.digest() == study.digest()
    assert study.name == file.stem or file.stem.startswith("pretrain-")


def test_the_full_study_comes_back(tmp_path: Path) -> None:
    study = load(FULL, tmp_path)
    assert load(config.dump(study), tmp_path) == study
    assert config.dump(load(config.dump(study), tmp_path)) == config.dump(study)
    assert study.text.train[0].where == {"language": "en", "kind of text": "news"}


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_FINITE = st.floats(1e-300, 1e300)


@settings(deadline=None, max_examples=60)
@given(text=_TEXT, where=st.dictionaries(_TEXT, _TEXT, max_size=3), weight=_FINITE, seed=st.integers(0, 2**31 - 1))
def test_any_text_and_number_comes_back(text: str, where: dict[str, str], weight: float, seed: int) -> None:
    corpus = config.Corpus(path=f"/{text}", domain_name=text, where=where, weight=weight)
    study = config.Study(name="x", seed=seed, text=config.Text(measure=[corpus]))
    assert config.Study.model_validate(tomllib.loads(config.dump(study))) == study


# ---- paths ----------------------------------------------------------------------------------------------------------


def test_relative_paths_start_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def path(**arguments: Any) -> str | None:
        return config.load(tmp_path / "study.toml", **arguments).text.measure[0].path

    load(FULL, tmp_path)
    monkeypatch.delenv("MNEMOSCOPE_DATA", raising=False)
    assert path() == str(tmp_path / "a/measure.jsonl")
    monkeypatch.setenv("MNEMOSCOPE_DATA", "/data")
    assert path() == "/data/a/measure.jsonl"
    assert path(data="/other") == "/other/a/measure.jsonl"
    for fixed in ("/abs/measure.jsonl", "embedded:sampler"):
        load(FULL.replace("a/measure.jsonl", fixed), tmp_path)
        assert path() == fixed


# ---- the digest -----------------------------------------------------------------------------------------------------


def changes(value: Any) -> Iterator[tuple[str, Any]]:
    """(where, the value with one thing in it changed), for every leaf of a study; unchecked."""
    match value:
        case BaseModel():
            for name in type(value).model_fields:
                for where, changed in changes(getattr(value, name)):
                    yield f"{name}.{where}", value.model_copy(update={name: changed})
        case list() | tuple():
            yield "shorter", value[:-1]
            for i, item in enumerate(value):
                for where, changed in changes(item):
                    yield f"{i}.{where}", [*value[:i], changed, *value[i + 1 :]]
        case dict():
            yield "more", {**value, "new": "x"}
            for key, item in value.items():
                for where, changed in changes(item):
                    yield f"{key}.{where}", {**value, key: changed}
        case bool():
            yield "", not value
        case int() | float():
            yield "", value + 1
        case str():
            yield "", f"{value}x"
        case None:
            yield "", "x"


def test_digest_is_of_everything_but_device_batch_scan_and_page(tmp_path: Path) -> None:
    study = load(FULL, tmp_path)
    ignored, tried = set(), 0
    for where, changed in changes(study):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that the schema would not admit
            tried += 1
            if changed.digest() == study.digest():
                ignored.add(where.rstrip("."))
    assert ignored == {"compute.device", "compute.batch_tokens", "compute.scan", "compute.track", "report.texts"}
    assert tried > 100


@pytest.fixture
def undo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., config.Study]:
    """Reads a study, whose data folder is data/, in the folder work/; makes the folder of an undoing in one of them."""
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def read(spelt: str, make: str | None = None) -> config.Study:
        if make is not None:
            (tmp_path / make).mkdir(parents=True)
            (tmp_path / make / "distribution.json").touch()
        text = FULL.replace('search = "beam:4"', f'search = "{spelt}"')
        (tmp_path / "study.toml").write_text(text)
        return config.load(tmp_path / "study.toml", data=tmp_path / "data")

    return read


def test_the_folder_of_a_search_lies_in_the_data_folder_or_else_where_one_works(
    tmp_path: Path, undo: Callable[..., config.Study]
) -> None:
    here = undo("undo:runs/undo", "work/runs/undo")
    assert here.decoders[2].search == f"undo:{tmp_path}/work/runs/undo"
    there = undo("undo:runs/undo", "data/runs/undo")
    assert there.decoders[2].search == f"undo:{tmp_path}/data/runs/undo"
    assert there.decoders[2].searches() == "undo:undo"
    # nor does it depend on the folder, absolute or not; its name does count
    assert here.digest() == there.digest() == undo(f"undo:{tmp_path}/work/runs/undo").digest()
    assert here.digest() != undo("undo:runs/other", "data/runs/other").digest()
    # what needs no path is left alone
    assert undo("beam:4").decoders[2].search == "beam:4"
    assert undo("beam:4").former_digests() == {undo("beam:4").digest()}


def test_the_folder_of_a_search_that_is_not_there_is_refused_with_its_line(
    tmp_path: Path, undo: Callable[..., config.Study]
) -> None:
    with pytest.raises(
        ConfigError, match=r"decoder 'three': the search 'undo' needs the folder .*there is none in"
    ) as e:
        undo("undo:runs/none")
    assert (tmp_path / "study.toml").read_text().splitlines()[e.value.line - 1] == 'search = "undo:runs/none"'
    assert f"A relative path starts from {tmp_path}/data, else from {tmp_path}/work" in e.value.remedy


def test_a_digest_of_before_the_folder_of_a_search_was_left_out_is_known(undo: Callable[..., config.Study]) -> None:
    """It was of the path as it was spelt; these are that version's."""
    study = undo("undo:runs/undo", "work/runs/undo")
    assert "7d219197bec274e16fcc0bdcedc656944ef575db0839e413a58aca204be780cb" in study.former_digests()
    assert "ea029fd79c5ab05a5e2d92e4d006553a3342a08572dd9ffd18bdc375726631d7" in study.former_digests(analysis=False)


def test_digest_ignores_the_folder_of_a_corpus_but_not_its_file(tmp_path: Path) -> None:
    digest = load(FULL, tmp_path).digest()
    assert load(FULL.replace("a/train.jsonl", "/elsewhere/b/train.jsonl"), tmp_path).digest() == digest
    assert load(FULL.replace("a/train.jsonl", "a/trane.jsonl"), tmp_path).digest() != digest
    assert load(f"{FULL}# another comment\n", tmp_path).digest() == digest


def test_the_file_of_an_annotation_lies_in_the_data_folder_or_else_where_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    for folder in (data, work):
        folder.mkdir()
    monkeypatch.chdir(work)

    def found(kind: str, argument: str) -> config.Study:
        text = FULL.replace('kind = "fields"\nargument = "spans"', f'kind = "{kind}"\nargument = "{argument}"')
        (tmp_path / "study.toml").write_text(text)
        return config.load(tmp_path / "study.toml", data=data)

    study = found("file", "spans.jsonl")
    assert study.annotations[0].argument == str(work / "spans.jsonl")
    (data / "spans.jsonl").touch()
    moved = found("file", "spans.jsonl")
    assert moved.annotations[0].argument == str(data / "spans.jsonl")
    assert moved.digest() == study.digest() != found("file", "other.jsonl").digest()
    assert found("frequency", "word spans.jsonl").annotations[0].argument == f"word {data / 'spans.jsonl'}"
    assert found("fields", "spans").annotations[0].argument == "spans"  # a field's name is no path


# ---- errors ---------------------------------------------------------------------------------------------------------

WRONG = {
    "top": ('name = "full"', 'nam = "full"', "unknown key 'nam'", "Did you mean 'name'?", "nam ="),
    "section": ("batch_tokens = 4096", "batch = 4096", "unknown key 'compute.batch'", "batch_tokens", "batch ="),
    "whole section": (
        "[estimate]",
        "[estimates]",
        "unknown key 'estimates'",
        "Did you mean 'estimate'?",
        "[estimates]",
    ),
    "second corpus": ('split = "train"', 'splitt = "train"', "unknown key 'text.train.1.splitt'", "'split'", "splitt"),
    "second decoder": ('weights = "mamba', 'wights = "mamba', "unknown key 'decoders.1.wights'", "weights", "wights"),
    "inline table": ("clip = 2.0", "clop = 2.0", "unknown key 'decoders.0.optimiser.clop'", "'clip'", "clop"),
    "missing": ('architecture = "mamba2"\n', "", "missing key 'pretrain.architecture'", "Add it", "[pretrain]"),
    "kind": ("seed = 11", 'seed = "11"', "seed: Input should be a valid integer", "Mend", "seed ="),
    "whole number": ("resamples = 300", "resamples = 300.0", "estimate.resamples: ", "Mend", "resamples"),
    "negative seed": ("seed = 11", "seed = -1", "seed: Input should be greater than or equal to 0", "Mend", "seed ="),
    "negative decoder seed": ("seeds = [0, 1]", "seeds = [0, -1]", "decoders.0.seeds.1: ", "Mend", "seeds = [0, -1]"),
    "seed too large": (
        "seed = 11",
        "seed = 4294967296",
        "seed: Input should be less than 2147483648",
        "Mend",
        "seed =",
    ),
    "infinite": ("weight = 2.5", "weight = inf", "text.train.0.weight: Input should be a finite", "Mend", "weight ="),
    "beta": ("[0.8, 0.9]", "[0.8, 1.0]", "decoders.0.optimiser.betas.1: ", "Mend", "betas"),
    "choice": ('prefix = "bos"', 'prefix = "eos"', "windows.prefix: Input should be 'none' or 'bos'", "Mend", "prefix"),
    "lengths": (
        "lengths = [4, 16]",
        "lengths = [16, 4]",
        "windows.lengths: lengths must rise",
        "Mend",
        "lengths = [16, 4]",
    ),
    "decoder lengths": ("lengths = [16]", "lengths = [16, 16]", "decoders.0.lengths: lengths must", "Mend", "[16, 16]"),
    "no such length": (
        "lengths = [16]",
        "lengths = [8]",
        "decoder 'one' has lengths that the study has not: [8]",
        "",
        None,
    ),
    "twice": (
        '["memory", "none"]',
        '["none", "none"]',
        "decoders.0.conditions: one of them is given twice",
        "",
        "conditions",
    ),
    "family": ('"bridged"', '"bridge"', "decoder 'one': no family named 'bridge'", "'bridged'? There are", "family"),
    "option": ("rank = 8", "rnak = 8", "unknown key 'decoders.0.options.rnak'", "'rank'? Known here: ", "options"),
    "another family's option": ("rank = 8", "layers = 8", "unknown key 'decoders.0.options.layers'", "rank", "layers"),
    "option's value": ("rank = 8", "rank = 0", "decoders.0.options.rank: Input should be", "Mend", "rank = 0"),
    "option's type": ("rank = 8", "rank = 8.0", "decoders.0.options.rank: Input should be", "Mend", "rank = 8.0"),
    "options of nothing": (
        "rank = 8",
        'revision = "main"',
        "decoders.0.options: revision and tokenizer are about model",
        "Mend",
        "options",
    ),
    "family of trained weights": (
        'weights = "mamba-nano"',
        'weights = "mamba-nano"\nfamily = "reader"',
        "decoders.1: recipe 'trained' has what its weights were trained as",
        "Mend",
        None,
    ),
    "condition": (
        '["wrong"]',
        '["worng"]',
        "decoder 'two': no condition named 'worng'",
        "Did you mean 'wrong'? There are: ",
        "worng",
    ),
    "no argument": (
        '["wrong"]',
        '["bits"]',
        "'bits' needs a whole number from 2 to 16, and has none",
        "Write bits:8",
        "bits",
    ),
    "surplus argument": ('["wrong"]', '["wrong:1"]', "'wrong' takes no argument", "Write wrong", "wrong:1"),
    "bits": ('["wrong"]', '["bits:17"]', "from 2 to 16, and got '17'", "Write bits:8, for example", "bits:17"),
    "layers": ('["wrong"]', '["layers:3-1"]', "'layers:3-1' ends before it begins", "Write layers:1-3", "layers:3-1"),
    "no layers": ('["wrong"]', '["layers:3"]', "needs a first and a last layer", "Write layers:0-1", "layers:3"),
    "layer": ('["wrong"]', '["layer_out:-1"]', "needs the number of a layer, and got '-1'", "Write layer_out:0", "-1"),
    "no noise": ('["wrong"]', '["noise:0.0"]', "'noise:0.0' is of no strength", "Write noise:0.1", "noise:0.0"),
    "noise twice": (
        '["wrong"]',
        '["noise:0.10"]',
        "not written as short as it can be",
        "Write noise:0.1",
        "noise:0.10",
    ),
    "noise in words": ('["wrong"]', '["noise:loud"]', "needs a number above 0", "Write noise:0.1", "noise:loud"),
    "no decoder": (
        '["wrong"]',
        '["bits:4@wrong"]',
        "asks for a decoder that is never trained",
        "bits:4@memory",
        "bits:4",
    ),
    "no such decoder": (
        '["wrong"]',
        '["bits:4@memry"]',
        "no condition named 'memry'",
        "Did you mean 'memory'?",
        "bits:4",
    ),
    "decoder anyway": ('["wrong"]', '["wrong@memory"]', "with the decoder of 'memory' anyway", "Write wrong", "wrong@"),
    "who guesses for others": (
        '["memory", "none"]',
        '["memory"]',
        "estimate.guesses: no decoder 'one' with the condition none; there is none",
        "Mend",
        None,
    ),
    "a length that nobody guesses": (
        'weights = "mamba-nano"\nseeds = [0]\nlengths = [16]',
        'weights = "mamba-nano"\nseeds = [0]',
        "estimate.guesses: decoder 'two' has lengths that 'one', which guesses for it, has not: [4]",
        "Mend",
        None,
    ),
    "a seed that nobody guesses": (
        "seeds = [0]",
        "seeds = [0, 5, 3]",
        "estimate.guesses: decoder 'two' has seeds that 'one', which guesses for it, has not: [3, 5]",
        "Mend",
        None,
    ),
    "same name": ('name = "two"', 'name = "one"', "two decoders share a name", "", None),
    "same annotation": (
        "[estimate]",
        '[[annotations]]\nname = "kinds"\nkind = "numbers"\n\n[estimate]',
        "cannot be called 'kinds', which is another's name",
        "",
        None,
    ),
    "annotation of a column": ('name = "kinds"', 'name = "domain"', "cannot be called 'domain'", "", None),
    "two bases": (
        "[report]",
        '[[effects]]\nby = "kinds"\nbase = "verb"\n\n[report]',
        "two effects by 'kinds' differ in base",
        "",
        None,
    ),
    "own control": ('controls = ["surprisal"]', 'controls = ["kinds"]', "leave 'kinds' out of controls", "", None),
    "two origins": (
        'split = "train"',
        'split = "x"\npath = "y"',
        "text.train.1: give exactly one of path and",
        "",
        "[[text.train]]",
    ),
    "trained and training": (
        'weights = "mamba-nano"',
        'weights = "x"\ntokens = 5',
        "recipe 'trained' trains nothing",
        "",
        None,
    ),
    "small vocabulary": ("vocabulary = 512", "vocabulary = 256", "pretrain.vocabulary: ", "Mend", "vocabulary"),
    "name": ('name = "full"', 'name = "../full"', "name: String should match pattern", "Mend", "name ="),
    "not TOML": ("seed = 11", "seed == 11", "not TOML: ", "Mend that line", "seed =="),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_where_and_what_to_do(case: str, tmp_path: Path) -> None:
    old, new, problem, remedy, on_line = WRONG[case]
    assert old in FULL
    content = FULL.replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        load(content, tmp_path)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.file == tmp_path / "study.toml"
    if on_line is not None:
        assert caught.value.line is not None
        assert on_line in content.splitlines()[caught.value.line - 1]
    assert str(caught.value).startswith(f"{tmp_path / 'study.toml'}:")


def test_a_misspelt_key_comes_before_the_one_that_is_missing_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'sede' \(1 more\). Did you mean 'seed'") as caught:
        load(FULL.replace("seed = 11", "sede = 11"), tmp_path)
    assert caught.value.line == 3


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such study"):
        config.load(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"cannot be read .* Save it as UTF-8 text"):
        config.load(tmp_path / "latin.toml")


# ---- values that are not the file's ---------------------------------------------------------------------------------


def changed(folder: Path, *changes: str, content: str = FULL) -> config.Study:
    (folder / "study.toml").write_text(content, encoding="utf-8")
    return config.load(folder / "study.toml", changes=changes)


#: what is set, and the same done in the file by hand
BY_HAND = {
    "model.name=runs/x/model": ('name = "owner/model"', 'name = "runs/x/model"'),
    "model.revision=2024-01-01": ('revision = "main"', 'revision = "2024-01-01"'),
    "seed=3": ("seed = 11", "seed = 3"),
    "pretrain.shape.tie_word_embeddings=false": ("tie_word_embeddings = true", "tie_word_embeddings = false"),
    "decoders.one.seeds=[4, 0]": ("seeds = [0, 1]", "seeds = [4, 0]"),
    "decoders.0.seeds=[0]": ("seeds = [0, 1]", "seeds = [0]"),
    "decoders.two.weights=runs/y/checkpoints/a=b": ('weights = "mamba-nano"', 'weights = "runs/y/checkpoints/a=b"'),
    "decoders.one.seeds.1=5": ("seeds = [0, 1]", "seeds = [0, 5]"),
    "decoders.one.optimiser.learning_rate=2e-3": ("learning_rate = 1e-3", "learning_rate = 2e-3"),
    "decoders.one.optimiser={learning_rate = 1.0}": (f"optimiser = {{ {OPTIMISER} }}", "optimiser.learning_rate = 1.0"),
    'text.train.0.where."kind of text"="1999"': ('"kind of text" = "news"', '"kind of text" = "1999"'),
    "text.train.1.first=2_000": ("first = 1000", "first = 2000"),
    'annotations.kinds.labels."."=stop': ('"." = ""', '"." = "stop"'),
    "estimate.by=[]": ('by = ["domain", "kinds"]', "by = []"),
    # what the file lacks
    "decoders.two.checkpoint_every=9": ('weights = "mamba-nano"', 'weights = "mamba-nano"\ncheckpoint_every = 9'),
}


@pytest.mark.parametrize("given", BY_HAND)
def test_a_value_that_is_set_is_one_written_into_the_file(given: str, tmp_path: Path) -> None:
    old, new = BY_HAND[given]
    assert old in FULL
    by_hand = load(FULL.replace(old, new, 1), tmp_path)
    study = changed(tmp_path, given)
    assert study == by_hand != load(FULL, tmp_path)
    assert study.digest() == by_hand.digest() != load(FULL, tmp_path).digest()
    # and a run's folder has it
    assert load(config.dump(study), tmp_path) == study


SMALL = 'name = "small"\nseed = 0\n[[text.measure]]\npath = "a.jsonl"\n'


def test_a_section_that_the_file_lacks_is_made(tmp_path: Path) -> None:
    study = changed(tmp_path, "compute.device=cpu", "model.name=m", "windows={lengths = [4, 8]}", content=SMALL)
    by_hand = SMALL + '[compute]\ndevice = "cpu"\n[model]\nname = "m"\n[windows]\nlengths = [4, 8]\n'
    assert study == load(by_hand, tmp_path)
    # together they may be right where each alone is not
    decoder = 'decoders=[{name = "v1.0", recipe = "trained", weights = "w", seeds = [0], conditions = ["memory"]}]'
    needed = ("model.name=m", "windows.lengths=[4]")
    study = changed(tmp_path, *needed, decoder, 'decoders."v1.0".weights=v', "seed=1", "seed=2", content=SMALL)
    assert (study.seed, study.decoders[0].weights) == (2, "v")
    with pytest.raises(ConfigError, match="decoders need the sections"):
        changed(tmp_path, decoder, content=SMALL)


def test_a_name_comes_before_a_number(tmp_path: Path) -> None:
    study = changed(tmp_path, "decoders.0.weights=v", content=FULL.replace('"two"', '"0"'))
    assert [d.weights for d in study.decoders] == [None, "v", None]


#: what is set: what is wrong, and what to do about it
SET_WRONG = {
    "model.nam=x": ("unknown key 'model.nam'", "Did you mean 'name'? Known here: "),
    "modle.name=x": ("unknown key 'modle'", "Did you mean 'model'?"),
    "seed=eleven": ("seed: Input should be a valid integer", "read as text: give TOML"),
    "decoders.one.conditions=[memory,none]": ("decoders.0.conditions: Input should be a valid list", "give TOML in"),
    "model.revision=123": ("model.revision: Input should be a valid string", "--set 'model.revision=\"...\"'"),
    "compute.device=gpu": ("compute.device: Input should be 'auto', ", "Mend"),
    "decoders.one.optimiser={clop = 1.0}": ("unknown key 'decoders.0.optimiser.clop'", "'clip'"),
    "decoders.one.conditions.0=worng": ("decoder 'one': no condition named 'worng'", "Did you mean 'wrong'?"),
    "decoders.one.search=beam": ("decoder 'one': the search 'beam' needs a number", "Write beam:4"),
    "decoders.one.family=bridge": ("decoder 'one': no family named 'bridge'", "'bridged'? There are"),
    "decoders.one.options.rnak=8": ("unknown key 'decoders.0.options.rnak'", "'rank'? Known here: "),
    "decoders.four.seeds=[0]": ("there is no four in decoders", "There are: one, two, three"),
    "decoders.tow.seeds=[0]": ("there is no tow in decoders", "Did you mean two?"),
    "decoders.3.seeds=[0]": ("there is no 3 in decoders", "There are: one, two, three"),
    "decoders.-1.seeds=[0]": ("there is no -1 in decoders", "There are: one, two, three"),
    "text.train.2.weight=1.0": ("there is no 2 in text.train", "There are: 0, 1"),
    "windows.lengths.2=32": ("there is no 2 in windows.lengths", "There are: 0, 1"),
    "decoders.two.shares.0=1.0": ("the study has no decoders.two.shares to choose from", "to a list"),
    "seed.x=1": ("seed is 11, which has no keys", "Set seed itself"),
    "seed": ("not KEY=VALUE", "Such as --set model.name="),
    "=3": ("not KEY=VALUE", "Such as --set model.name="),
    "model..name=x": ("not KEY=VALUE", "Such as --set model.name="),
}


@pytest.mark.parametrize("given", SET_WRONG)
def test_what_is_wrong_with_what_is_set(given: str, tmp_path: Path) -> None:
    problem, remedy = SET_WRONG[given]
    with pytest.raises(ConfigError) as caught:
        changed(tmp_path, "name=other", given, "windows.nested=false")
    assert caught.value.problem.startswith(f"--set {given}: {problem}")
    assert remedy in caught.value.remedy
    assert (caught.value.file, caught.value.line) == (None, None)


def test_a_section_that_was_made_and_is_not_whole_is_the_options_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--set pretrain.context=32: missing key 'pretrain\.architecture'"):
        changed(tmp_path, "pretrain.context=32", content=SMALL)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("windows.lengths=[4]", "decoder 'one' has lengths that the study has not: [16]"),
        ("decoders.two.recipe=growing", "decoders.1: recipe 'growing' starts from the encoder's weights"),
        ("decoders.one.family=native", "unknown key 'decoders.0.options.rank'"),
    ],
)
def test_no_line_is_blamed_for_what_disagrees_with_what_is_set(given: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(tmp_path, "seed=1", given)
    assert caught.value.problem.startswith(f"with --set seed=1 --set {given}: ")
    assert problem in caught.value.problem
    assert (caught.value.file, caught.value.line) == (tmp_path / "study.toml", None)


def test_what_is_wrong_with_the_file_keeps_its_line(tmp_path: Path) -> None:
    wrong = FULL.replace("resamples = 300", "resample = 300")
    with pytest.raises(ConfigError, match=r"^[^ ]*study\.toml:[0-9]+: unknown key 'estimate.resample'") as caught:
        changed(tmp_path, "estimate.position_bins=2", "seed=1", content=wrong)
    assert wrong.splitlines()[(caught.value.line or 0) - 1] == "resample = 300"
    # unless it is set to what is right
    assert changed(tmp_path, "seed=1", content=FULL.replace("seed = 11", "seed = true")).seed == 1


@settings(deadline=None, max_examples=60)
@given(text=_TEXT)
def test_any_text_can_be_set_in_quotes(text: str) -> None:
    values: dict[str, Any] = {}
    change(values, f"model.{bare(text)}={bare(text + '.')}", config.Study)
    assert values == {"model": {text: f"{text}."}}

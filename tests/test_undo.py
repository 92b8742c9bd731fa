"""A window read back from the first layer's memory: each formula by hand, and whole windows of a small model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import tiny
import torch
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import undone, verbatim
from mnemoscope import config, pipeline, plugins
from mnemoscope.cli import app
from mnemoscope.codec.decoder import encode
from mnemoscope.codec.families.native import Native
from mnemoscope.codec.generate import Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.config import Corpus
from mnemoscope.errors import ConfigError, ModelError, RunError, TextError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import load
from mnemoscope.progress import Silent
from mnemoscope.rundir import RunDir
from mnemoscope.text.tokens import TokenStore
from mnemoscope.types import IntArray
from mnemoscope.undo import Distribution, FirstLayer, Reader, fit
from mnemoscope.undo.distribution import groups_of, regressors, seen
from mnemoscope.undo.layer import KINDS, fingerprint
from mnemoscope.undo.reader import EFFORTS

VOCABULARY = tiny.SIZES["vocab_size"]
LONGEST = 14


def adapter(kind: str = "mamba") -> Adapter:
    return tiny.adapter(kind).requires_grad_(False)


def draw(rng: np.random.Generator, length: int, count: int) -> IntArray:
    return rng.integers(0, VOCABULARY, (count, length))


@pytest.fixture(scope="module")
def distribution() -> Distribution:
    return Distribution.fit(adapter(), draw, torch.ones(VOCABULARY), LONGEST, 3000, 0, Silent())


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_by_hand_makes_the_models_own_state(kind: str) -> None:
    model = tiny.adapter(kind, torch.float64).requires_grad_(False)
    layer = FirstLayer(model, torch.arange(48), torch.ones(VOCABULARY), torch.float64)
    ids = tiny.ids(3, 7)
    padded = torch.cat([torch.full((3, layer.width - 1), layer.before), ids], 1)
    h = torch.zeros(3, 48 * layer.columns, dtype=torch.float64)
    for t in range(7):
        decay, added = layer.decay_and_input(list(padded[:, t : t + layer.width].T))
        h = decay.exp() * h + added
    assert torch.allclose(h, encode(model, ids)["layers.0.ssm"].flatten(1), rtol=1e-9, atol=1e-12)
    # and the convolution's memory is the inputs of the last tokens
    conv = encode(model, ids)["layers.0.conv"]
    assert torch.allclose(conv, layer.inputs[ids[:, 1 - layer.width :]].mT, rtol=1e-9, atol=1e-12)


def test_some_numbers_are_those_of_all() -> None:
    layer = FirstLayer(adapter(), torch.tensor([5, 0, 30]), torch.ones(VOCABULARY), torch.float32)
    taps = [torch.arange(4), *(torch.tensor([i]) for i in range(1, layer.width))]
    numbers = torch.tensor([7, 0, 12])
    for whole, some in zip(layer.decay_and_input(taps), layer.decay_and_input(taps, numbers), strict=True):
        assert torch.equal(whole[:, numbers], some)


def test_an_unknown_token_is_the_mean_one() -> None:
    frequency = torch.zeros(VOCABULARY)
    frequency[3], frequency[8] = 1, 3
    layer = FirstLayer(adapter(), torch.arange(48), frequency, torch.float64)
    taps = layer.taps[1]
    assert torch.allclose(taps[layer.unknown], 0.25 * taps[3] + 0.75 * taps[8])
    assert not layer.taps[1][layer.before].any()
    # what is looked up is what is computed
    last = [*[torch.tensor([layer.unknown])] * (layer.width - 1), torch.tensor([4, 9])]
    for kept, anew in zip(layer.steps(last), layer._steps(last), strict=True):
        assert torch.allclose(kept, anew)


def test_what_the_convolution_sees() -> None:
    layer = FirstLayer(adapter(), torch.arange(48), torch.ones(VOCABULARY), torch.float32)
    assert layer.width == 4
    a, b, c = (torch.tensor([i]) for i in (1, 2, 3))
    u, n = layer.unknown, layer.before
    # at position 4 the tokens 2, 3 and 4 are known; 0 and 1 are there, and nothing before them
    found = [[int(x) for x in seen(layer, [a, b, c], 4, back)] for back in range(3)]
    assert found == [[u, 1, 2, 3], [u, u, 1, 2], [n, u, u, 1]]
    # at position 2 all are known
    assert [int(x) for x in seen(layer, [a, b, c], 2, 2)] == [n, n, n, 1]


def test_regressors_of_known_tokens_alone_are_the_state() -> None:
    """After K - 1 tokens from nothing the parts that the steps put in add up to it."""
    model = tiny.adapter("mamba", torch.float64).requires_grad_(False)
    layer = FirstLayer(model, torch.arange(48), torch.ones(VOCABULARY), torch.float64)
    ids = tiny.ids(2, layer.width - 1)
    parts = regressors(layer, list(ids.T), layer.width - 2)
    assert len(parts) == layer.width
    expected = encode(model, ids)["layers.0.ssm"].flatten(1)
    assert torch.allclose(torch.stack(parts[:-1]).sum(0), expected, rtol=1e-9, atol=1e-12)


def test_groups() -> None:
    assert list(groups_of(3, 12)) == [(3, 4), (5, 6), (7, 9), (10, 12)]
    assert list(groups_of(3, 3)) == [(3, 3)]


def test_what_is_fitted_is_standard(distribution: Distribution) -> None:
    """Of states of other windows the rests have the deviations and the covariance that were fitted."""
    model = adapter()
    layer = FirstLayer(model, distribution.channels, distribution.frequency, torch.float32)
    position = 8
    group, place = distribution.at(position)
    ids = torch.from_numpy(draw(np.random.default_rng(7), position + 1, 3000))
    state = encode(model, ids)["layers.0.ssm"][:, distribution.channels].flatten(1)
    parts = regressors(layer, list(ids[:, -3:].T), position)
    explained = sum(p * group.coefficients[place, :, i] for i, p in enumerate(parts)) + group.coefficients[place, :, -1]
    rest = (state - explained) / group.deviation[place]
    assert rest.mean(0).abs().max() < 0.15
    assert (rest.std(0) - 1).abs().mean() < 0.05
    assert (rest.T.cov() - group.covariance).abs().mean() < 0.05
    assert distribution.longest == LONGEST
    assert distribution.at(1000)[0] is distribution.groups[-1]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 9, LONGEST])
def test_windows_are_read_back(distribution: Distribution, length: int) -> None:
    model = adapter()
    reader = Reader(model, distribution)
    ids = torch.from_numpy(draw(np.random.default_rng(length), length, 6))
    memory = encode(model, ids)
    for row, text in enumerate(ids.tolist()):
        found = reader.read(memory["layers.0.ssm"][row], memory["layers.0.conv"][row], length, EFFORTS[0])
        assert text in found[:1]


def test_it_is_read_a_token_at_a_time(distribution: Distribution) -> None:
    model, ids = adapter(), tiny.ids(1, 9)
    memory = encode(model, ids)
    ssm, conv = memory["layers.0.ssm"][0], memory["layers.0.conv"][0]
    reader = Reader(model, distribution)
    found = list(reader.backwards(ssm, conv, 9, EFFORTS[0]))
    known = reader.layer.width - 1
    assert [len(texts[0]) for texts in found] == list(range(known, 10))
    assert found[-1] == reader.read(ssm, conv, 9, EFFORTS[0])
    assert undone.undone(reader, memory, ids[0].tolist()) == 9
    # the oldest token is another: all but that one are right
    other = [(int(ids[0, 0]) + 1) % VOCABULARY, *ids[0, 1:].tolist()]
    assert undone.undone(reader, memory, other) == 8


def test_what_a_window_costs_that_is_undone_from_its_end() -> None:
    """Of six tokens 3, 4, 5 or 6 may be undone: log 4; four are, so the first two are paid for."""
    assert undone.costs(4, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 4) == pytest.approx(np.log(4) + 3.0)
    assert undone.costs(6, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 4) == pytest.approx(np.log(4))
    rows = [
        {"doc_id": f"d{i}", "length": 6, "k": 5 + i % 2, "nats": 6.0, "code": 2.0 + i % 2, "guessed": 10.0}
        for i in range(8)
    ]
    line = undone.summary(rows, 0)
    # 1 - 48 / 80, and 1 - 20 / 80
    assert line.startswith("| 6 | 8 | 6 (5 to 6) | 4 of 8 | 0.400 (0.400 to 0.400) | 0.750 (0.")


def test_what_the_convolution_hands_over_verbatim() -> None:
    """Of one window: 2 + 3 nats of the last two tokens, 10 - 4 that the memory spares, 1 + 4 + 2 + 3 of all."""
    guessed, nats = np.array([[1.0, 4.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 0.0, 0.0]])
    assert verbatim.shares(2, nats, guessed).tolist() == [[5.0, 6.0, 10.0]]


@pytest.mark.parametrize("model_type", ["mamba", "mamba2"])
def test_the_last_tokens_are_told_from_the_convolution(model_type: str) -> None:
    model, ids = tiny.adapter(model_type), tiny.ids(4, 9)
    inputs, conv = verbatim.inputs_of_tokens(model), encode(model, ids)["layers.0.conv"]
    assert verbatim.told(inputs, conv, ids) == 4 * conv.shape[2]
    # of the first window the token before last is another now
    ids[0, -2] = (ids[0, -2] + 1) % len(inputs)
    assert verbatim.told(inputs, conv, ids) == 4 * conv.shape[2] - 1


def test_another_state_is_not_read(distribution: Distribution) -> None:
    """Of the state of one window and the convolution's memory of another no text is in both."""
    model = adapter()
    ids = torch.from_numpy(draw(np.random.default_rng(1), 8, 2))
    memory = encode(model, ids)
    for text in Reader(model, distribution).read(memory["layers.0.ssm"][0], memory["layers.0.conv"][1], 8, EFFORTS[0]):
        again = encode(model, torch.tensor([text]))
        assert not torch.equal(again["layers.0.ssm"][0], memory["layers.0.ssm"][0])


def test_saved_and_loaded_it_is_the_same(distribution: Distribution, tmp_path: Path) -> None:
    distribution.save(tmp_path / "undo")
    loaded = Distribution.load(tmp_path / "undo")
    assert (loaded.model, loaded.states) == (distribution.model, distribution.states)
    assert torch.equal(loaded.channels, distribution.channels)
    for one, other in zip(loaded.groups, distribution.groups, strict=True):
        assert (one.first, one.last) == (other.first, other.last)
        assert torch.equal(one.covariance, other.covariance)
        assert torch.equal(one.coefficients, other.coefficients)
    (tmp_path / "undo" / "distribution.safetensors").write_bytes(b"half")
    with pytest.raises(RunError, match="mnemoscope undo"):
        Distribution.load(tmp_path / "undo")


def test_another_models_is_refused(distribution: Distribution) -> None:
    other = tiny.adapter("mamba", seed=3)
    with pytest.raises(ConfigError, match="another model's first layer"):
        Reader(other, distribution)


def test_another_models_is_refused_before_a_decoder_is_trained(distribution: Distribution, tmp_path: Path) -> None:
    distribution.save(tmp_path / "undo")
    decoder = small.values(tmp_path)["decoders"][0] | {"search": f"undo:{tmp_path / 'undo'}"}
    study = config.load(small.study(tmp_path, decoders=[decoder]))
    with pytest.raises(ConfigError, match="another model's first layer"):
        pipeline.run(study, tmp_path / "run", until="prepare")
    (tmp_path / "undo/distribution.json").write_text("{}")
    with pytest.raises(RunError, match="no distribution of states can be read"):
        pipeline.run(study, tmp_path / "again", until="prepare")


def searched(distribution: Distribution, place: Path, folder: str) -> config.Study:
    """A study that searches by a distribution, which says that it is of the study's model."""
    theirs = load(str(small.model(place / "model")), scan="reference").adapter
    replace(distribution, model=fingerprint(theirs)).save(place / folder)
    decoder = small.values(place)["decoders"][0] | {"search": f"undo:{folder}"}
    return config.load(small.study(place, decoders=[decoder]))


def test_a_run_of_before_its_searchs_folder_was_made_absolute_goes_on(
    distribution: Distribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = searched(distribution, tmp_path, "made/undo")
    run = pipeline.run(study, tmp_path / "run", until="prepare")
    before = study.model_copy(
        update={"decoders": [d.model_copy(update={"search": "undo:made/undo"}) for d in study.decoders]}
    )
    assert study.decoders[0].search == f"undo:{tmp_path}/made/undo"
    (former,) = {before._digest(True, str)} - {study.digest()}
    run.note(study=former, measured=before._digest(False, str))
    run.study_file.write_text(config.dump(before))
    with run.stage("estimate"):
        pass
    assert RunDir.open(run.path).is_done("estimate")
    # from then on wherever it is read
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = RunDir.open(run.path)
    assert again.is_done("estimate")
    assert again.manifest["study"] == study.digest()


def test_another_distribution_in_the_folder_of_a_run_is_refused(distribution: Distribution, tmp_path: Path) -> None:
    study = searched(distribution, tmp_path, "undo")
    pipeline.run(study, tmp_path / "run", until="prepare")
    pipeline.run(study, tmp_path / "run", until="prepare")
    (tmp_path / "undo/distribution.safetensors").write_bytes(b"other")
    with pytest.raises(RunError, match="the searches of this run changed"):
        pipeline.run(study, tmp_path / "run", until="prepare")


def test_an_architecture_whose_steps_are_others_is_refused() -> None:
    with pytest.raises(ModelError, match="'mamba2' are not undone"):
        Distribution.numbers(adapter("mamba2"))


def test_from_a_model_and_a_text_to_windows_read_back(tmp_path: Path) -> None:
    """By the command, and by the search that takes what it made; a fresh decoder writes them not."""
    folder, numbers = small.model(tmp_path / "model"), 32 * 4
    text = small.text(tmp_path / "text.jsonl", documents=30)
    arguments = ["undo", str(folder), "--text", str(text), "--out", str(tmp_path / "undo"), "--longest", "12"]
    done = CliRunner().invoke(app, [*arguments, "--states", str(12 * numbers)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "windows of up to 12 tokens" in done.output
    loaded = load(str(folder), scan="reference")
    model = loaded.adapter.requires_grad_(False)
    store = TokenStore.build([Corpus.model_validate({"path": str(text)})], loaded.tokenizer, tmp_path)
    ids = torch.from_numpy(store.sample(np.random.default_rng(5), 10, 8))
    memory, writer = encode(model, ids), Writer(Native.from_encoder(model, 0, 0).eval())
    judge = Judge(lambda texts: encode(model, texts), lambda: [memory], model)
    search = plugins.load("search", f"undo:{tmp_path / 'undo'}")
    written = search.write(writer, memory, 10, judge)
    assert [w.ids for w in written] == ids.tolist()
    assert [w.ids for w in writer.write(memory, 10)] != ids.tolist()
    # of nothing nothing is read: the decoder's own text stays
    nothing = memory.zeros_like()
    assert search.write(writer, nothing, 10, judge) == writer.write(nothing, 10)


def test_what_is_wrong_is_said_before_anything_is_fitted(tmp_path: Path) -> None:
    folder, text = small.model(tmp_path / "model"), small.text(tmp_path / "text.jsonl")
    arguments = {"longest": 12, "states": 10_000, "seed": 0, "progress": Silent()}
    with pytest.raises(ConfigError, match=r"100 states are too few .* 128 numbers.*--states 256"):
        fit.fit(str(folder), [str(text)], tmp_path / "undo", **(arguments | {"states": 100}))
    with pytest.raises(TextError, match="no training document has 9998 tokens"):
        fit.fit(str(folder), [str(text)], tmp_path / "undo", **(arguments | {"longest": 9999}))
    with pytest.raises(ConfigError, match="the search 'undo' needs the folder"):
        plugins.load("search", f"undo:{tmp_path}")
    assert not (tmp_path / "undo").exists()

"""What every file in codec/families/ must hold to.  A new one is found here by its name, without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pydantic import ValidationError
from torch import Tensor

from mnemoscope import config, plugins
from mnemoscope.codec.decoder import Decoder, encode
from mnemoscope.codec.generate import Writer
from mnemoscope.codec.search._judge import Judge
from mnemoscope.memory.load import Loaded
from mnemoscope.memory.memory import Memory
from mnemoscope.train import checkpoint
from mnemoscope.train.plan import Plan, fixed
from mnemoscope.train.processes import accelerator
from mnemoscope.train.step import optimiser_for, step_for

FAMILIES = plugins.names("family")
#: small enough for tiny models; a family that is not here is tried with its own defaults
SMALL: dict[str, dict[str, Any]] = {"bridged": {"rank": 3}, "reader": {"layers": 2}}
BOS, EOS = 0, 1
each = pytest.mark.parametrize("family", FAMILIES)
architectures = pytest.mark.parametrize("architecture", ["mamba", "mamba2"])


def loaded(architecture: str = "mamba", dtype: torch.dtype = torch.float32) -> Loaded:
    return Loaded(tiny.adapter(architecture, dtype).requires_grad_(False), None, "tiny", "digest")


def make(family: str, encoder: Loaded, seed: int = 5, **options: Any) -> Decoder:
    found = plugins.load("family", family)
    chosen = found.Options.model_validate(SMALL.get(family, {}) | options)
    decoder: Decoder = found.make(encoder, BOS, EOS, chosen, seed)
    return decoder.eval()


def disturbed(decoder: Decoder, by: float = 0.1) -> Decoder:
    """With every parameter away from what it begins as, where a zero may hide what is wrong."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator).to(parameter)
    return decoder


def windows(rows: int, length: int) -> Tensor:
    """Ids that are neither BOS nor EOS."""
    return tiny.ids(rows, length) % (tiny.SIZES["vocab_size"] - 2) + 2


def nats_of(decoder: Decoder, memory: Memory, ids: list[int], stopped: bool) -> float:
    """-ln p of a text, and of its EOS where it stopped."""
    with torch.no_grad():
        hidden = decoder.hidden(memory, torch.tensor([[BOS, *ids]]))
        likely = decoder.language.head(hidden)[0].log_softmax(-1)
    return -sum(float(likely[place, token]) for place, token in enumerate([*ids, EOS][: len(ids) + stopped]))


def written_without_a_state(decoder: Decoder, memory: Memory, steps: int) -> Tensor:
    """The most likely token again and again, everything computed anew for each: [B, steps]."""
    inputs = torch.full((memory.batch, 1), BOS)
    for _ in range(steps):
        logits = decoder.language.head(decoder.hidden(memory, inputs))
        inputs = torch.cat([inputs, logits[:, -1:].argmax(-1)], 1)
    return inputs[:, 1:]


def test_the_three_are_there() -> None:
    assert {"native", "bridged", "reader"} <= set(FAMILIES)


@each
@architectures
class TestEveryFamily:
    def test_what_it_gives(self, family: str, architecture: str) -> None:
        encoder, ids = loaded(architecture), windows(3, 7)
        decoder = make(family, encoder)
        assert isinstance(decoder, Decoder)
        assert (decoder.bos, decoder.eos, decoder.device) == (BOS, EOS, encoder.adapter.device)
        nats, predicted = decoder(encode(encoder.adapter, ids), ids)
        assert nats.shape == predicted.shape == (3, 8)
        assert (nats.dtype, predicted.dtype) == (torch.float32, torch.int64)
        given, real = decoder.empty(3), encode(encoder.adapter, ids)
        assert {n: (p.shape, p.dtype) for n, p in given.items()} == {n: (p.shape, p.dtype) for n, p in real.items()}
        assert not any(part.any() for part in given.values())

    def test_the_encoder_is_not_trained(self, family: str, architecture: str) -> None:
        encoder, ids = loaded(architecture), windows(2, 5)
        decoder = make(family, encoder)
        decoder.begin_training()
        theirs = {id(p) for p in encoder.adapter.parameters()}
        assert not theirs & {id(p) for p in decoder.parameters()}
        decoder(encode(encoder.adapter, ids), ids)[0].sum().backward()
        assert all(p.grad is None and not p.requires_grad for p in encoder.adapter.parameters())

    def test_the_loss_falls(self, family: str, architecture: str, tmp_path: Path) -> None:
        """By the very steps of a training, from what tells the windows apart: their memories."""
        encoder, ids = loaded(architecture), windows(8, 3)
        decoder = make(family, encoder)
        decoder.begin_training()
        decoder.train()
        plan = Plan(fixed(3, 1), 24, config.Optimiser(learning_rate=1e-2), 1)
        processes = accelerator(config.Compute(device="cpu"))
        optimiser = optimiser_for(decoder, plan)
        step = step_for(decoder, optimiser, lambda m, i: m(encode(encoder.adapter, i), i)[0], plan, processes)
        losses = [step(ids, len(ids), 1e-2).item() for _ in range(60)]
        assert losses[-1] < 0.5 * losses[0]

    def test_seeds_decide_what_it_begins_as(self, family: str, architecture: str) -> None:
        encoder = loaded(architecture)
        torch.manual_seed(0)
        one, again = make(family, encoder, 5), make(family, encoder, 5)
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name]), name

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_a_row_of_a_batch_is_that_row_alone(self, family: str, architecture: str, dtype: torch.dtype) -> None:
        encoder, ids = loaded(architecture, dtype), windows(4, 6)
        decoder, memory = disturbed(make(family, encoder)), encode(encoder.adapter, ids)
        with torch.no_grad():
            nats, _ = decoder(memory, ids)
            for row in range(4):
                alone, _ = decoder(memory.rows(torch.tensor([row])), ids[row : row + 1])
                assert torch.allclose(alone[0], nats[row], rtol=1e-5, atol=1e-5)

    def test_gradients_reach_the_memory(self, family: str, architecture: str) -> None:
        """Those of every part are the slopes of the loss along a random direction, and along that of one part alone."""
        encoder, ids = loaded(architecture, torch.float64), windows(2, 5)
        decoder = disturbed(make(family, encoder))
        memory = encode(encoder.adapter, ids).map(lambda part: part.requires_grad_())

        def loss(at: Memory) -> Tensor:
            # in float64, which the decoder's own nats are not
            inputs = torch.nn.functional.pad(ids, (1, 0), value=BOS)
            targets = torch.nn.functional.pad(ids, (0, 1), value=EOS)
            logits = decoder.language.head(decoder.hidden(at, inputs))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")

        loss(memory).backward()
        generator = torch.Generator().manual_seed(3)
        for chosen in memory:
            gradient = memory[chosen].grad
            assert gradient is not None
            assert gradient.abs().max() > 0, chosen
            along = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            shifted = [
                Memory({n: p.detach() + (sign * 1e-6 * along if n == chosen else 0) for n, p in memory.items()})
                for sign in (1, -1)
            ]
            with torch.no_grad():
                slope = (loss(shifted[0]) - loss(shifted[1])) / 2e-6
            assert (gradient * along).sum().item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-7), chosen

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_steps_are_the_whole_at_once(self, family: str, architecture: str, dtype: torch.dtype) -> None:
        encoder, ids = loaded(architecture, dtype), windows(3, 6)
        decoder, memory = disturbed(make(family, encoder)), encode(encoder.adapter, ids)
        inputs = torch.nn.functional.pad(ids, (1, 0), value=BOS)
        with torch.no_grad():
            expected = decoder.language.head(decoder.hidden(memory, inputs))
            state = decoder.start(memory, 9)
            for place in range(7):
                before = {name: part.clone() for name, part in state.items()}
                logits, after = decoder.step(state, inputs[:, place])
                assert logits.shape == (3, tiny.SIZES["vocab_size"])
                assert torch.allclose(logits, expected[:, place], rtol=1e-4, atol=1e-4)
                assert all(torch.equal(state[name], part) for name, part in before.items()), "the state was changed"
                assert {n: p.shape for n, p in after.items()} == {n: p.shape for n, p in before.items()}
                state = after

    def test_rows_of_a_state_may_be_reordered(self, family: str, architecture: str) -> None:
        """As beams are: what a row does next is its own doing, wherever it stands, and however far the others are."""
        encoder, ids = loaded(architecture), windows(3, 6)
        decoder, memory = disturbed(make(family, encoder)), encode(encoder.adapter, ids)
        with torch.no_grad():
            start = decoder.start(memory, 5)
            _, state = decoder.step(start, torch.full((3,), BOS))
            order = torch.tensor([2, 0, 0, 1])
            expected, _ = decoder.step(state, ids[:, 0])
            found, _ = decoder.step(state.rows(order), ids[order, 0])
            assert torch.allclose(found, expected[order], atol=1e-5)
            # one at its first token beside two at their second
            mixed = Memory({n: torch.cat([start[n][:1], part[1:]]) for n, part in state.items()})
            found, _ = decoder.step(mixed, torch.tensor([BOS, int(ids[1, 0]), int(ids[2, 0])]))
            first, _ = decoder.step(start, torch.full((3,), BOS))
            assert torch.allclose(found, torch.stack([first[0], expected[1], expected[2]]), atol=1e-5)

    def test_greedy_writing_is_what_it_is_by_its_definition(self, family: str, architecture: str) -> None:
        """Five windows, four slots at a time, so that rows are at different places; twice, in the same buffers."""
        encoder, ids, length = loaded(architecture), windows(5, 4), 4
        decoder, memory = disturbed(make(family, encoder), 0.4), encode(encoder.adapter, ids)
        with torch.no_grad():
            expected = written_without_a_state(decoder, memory, 2 * length)
        writer = Writer(decoder)
        writer.rows = 4
        for _ in range(2):
            for row, found in zip(expected.tolist(), writer.write(memory, length), strict=True):
                until = row.index(EOS) if EOS in row else None
                assert (found.ids, found.stopped) == (row[:until], until is not None)
        assert len({tuple(row) for row in expected.tolist()}) > 1

    @pytest.mark.parametrize("search", ["beam:1", "beam:3", "reencode:2:4"])
    def test_every_search_goes_by_its_states(self, family: str, architecture: str, search: str) -> None:
        """A beam of one is greedy; a wider one writes what is no less likely; a re-encoding one ends."""
        encoder, ids, length = loaded(architecture), windows(3, 4), 4
        decoder, memory = disturbed(make(family, encoder), 0.4), encode(encoder.adapter, ids)
        writer = Writer(decoder)
        judge = Judge(lambda texts: encode(encoder.adapter, texts), lambda: [memory], encoder.adapter)
        found = plugins.load("search", search).write(writer, memory, length, judge)
        greedy = writer.write(memory, length)
        assert len(found) == 3
        if search == "beam:1":
            assert found == greedy
        if search == "beam:3":
            for row, (one, other) in enumerate(zip(found, greedy, strict=True)):
                own = memory.rows(torch.tensor([row]))
                nats = [nats_of(decoder, own, w.ids, w.stopped) for w in (one, other)]
                assert nats[0] <= nats[1] + 1e-4

    def test_saved_and_loaded_it_is_the_same(self, family: str, architecture: str, tmp_path: Path) -> None:
        from mnemoscope.train import decoders

        encoder, ids = loaded(architecture), windows(2, 5)
        trained, memory = disturbed(make(family, encoder, 5)), encode(encoder.adapter, ids)
        trained.end_training()
        checkpoint.save_weights(trained, tmp_path / "weights.safetensors")
        fresh = make(family, encoder, 6)
        decoders.load_weights(fresh, tmp_path / "weights.safetensors")
        with torch.no_grad():
            assert torch.equal(fresh(memory, ids)[0], trained(memory, ids)[0])

    def test_in_bfloat16(self, family: str, architecture: str) -> None:
        """Where the encoder's parameters are, and under autocast: finite, near, and with finite gradients."""
        ids = windows(2, 5)
        exact = make(family, loaded(architecture))
        expected = exact(encode(loaded(architecture).adapter, ids), ids)[0]
        for encoder, mixed in ((loaded(architecture, torch.bfloat16), False), (loaded(architecture), True)):
            decoder = make(family, encoder)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                nats, _ = decoder(encode(encoder.adapter, ids), ids)
            assert torch.allclose(nats, expected, rtol=0.2, atol=0.5)
            nats.sum().backward()
            assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)
            with torch.no_grad():
                (written, *_) = Writer(decoder).write(encode(encoder.adapter, ids), 5)
            assert len(written.ids) <= 10


@each
def test_options_have_defaults_and_others_are_refused(family: str) -> None:
    options = plugins.load("family", family).Options
    assert issubclass(options, config.Section)
    options()
    assert all(field.description for field in options.model_fields.values())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        options.model_validate({"nothing": 1})

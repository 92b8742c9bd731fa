"""``reader``: a Transformer (Vaswani et al. 2017) that attends over the memory cut into slots, whatever its
architecture, and corrects what the frozen encoder itself expects of the text.

    h_t       what the encoder's head is given after [BOS] x1 ... xt, read from an empty memory: the language model
    slots     the memory in standard units (_units.py): of each part one slot for each of its columns (an SSM state of
              16 numbers a channel gives 16 slots, a convolution's state one for each token), mapped linearly to the
              reader's width, the map a part's own, plus a place that is learnt
    reader    layers over h_t and the embedding of x_t: attention to what it has written, attention to the slots, a map
    logits    head(h_t + W z_t), z_t what the reader ends with; W begins at zero

So it begins as the language model and has only the reading to learn.  The head stays the encoder's: tokens whose rows
there are equal it cannot tell apart, whatever is in the memory.

Symbols: B windows, T tokens, S slots, H heads, d width.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mnemoscope import config
from mnemoscope.codec.decoder import Decoder
from mnemoscope.codec.families._units import Units
from mnemoscope.config.sections import PositiveInt
from mnemoscope.errors import ModelError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded
from mnemoscope.memory.memory import Memory

#: width of a head, where the reader's width is a multiple of it
HEAD = 64


class ReaderOptions(config.Section):
    layers: PositiveInt = Field(6, description="layers of the Transformer")
    width: PositiveInt | None = Field(None, description="of the Transformer; the encoder's if left out")
    heads: PositiveInt | None = Field(None, description=f"of its attention; one for each {HEAD} of width if left out")


class Slots(nn.Module):
    """A memory as a row of vectors [B, S, d].

    Args:
        encoder: whose memory it is.
        seed: of the maps, and of what the units are taken from.
    """

    def __init__(self, encoder: Adapter, width: int, seed: int):
        super().__init__()
        self.units = Units(encoder, seed)
        generator = torch.Generator().manual_seed(seed)
        self.maps, self.places = nn.ParameterList(), nn.ParameterList()
        for kind in self.units.kinds:
            parts, channels, columns = kind.numbers
            # of the size of the places
            self.maps.append(nn.Parameter(torch.randn(parts, width, channels, generator=generator) / channels**0.5))
            self.places.append(nn.Parameter(torch.randn(parts, columns, width, generator=generator)))
        self.norm = nn.LayerNorm(width)

    def forward(self, memory: Memory) -> Tensor:
        rows = [
            (torch.einsum("pdc,pcbn->bpnd", map_, numbers) + places).flatten(1, 2)
            for numbers, map_, places in zip(self.units(memory), self.maps, self.places, strict=True)
        ]
        return self.norm(torch.cat(rows, 1))


class Layer(nn.Module):
    """Pre-norm: attention to what was written, attention to the slots, a map of four times the width."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_own, self.before_slots, self.before_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.ask, self.answer = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.slots = nn.Linear(width, 2 * width, bias=False)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, H, T, d / H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def of_slots(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the slots [B, H, S, d / H]."""
        keys, values = self.slots(slots).chunk(2, -1)
        return self.split(keys), self.split(values)

    def own(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of what is written, for :meth:`forward`."""
        q, k, v = self.qkv(self.before_own(x)).chunk(3, -1)
        return self.split(q), self.split(k), self.split(v)

    def forward(
        self, x: Tensor, own: tuple[Tensor, Tensor, Tensor], slots: tuple[Tensor, Tensor], seen: Tensor | None
    ) -> Tensor:
        """x [B, T, d].

        Args:
            own: queries of x, keys and values of all that it may look back at.
            seen: bool [B, 1, T, keys], which keys; None for those up to its own, causally.
        """
        join = lambda y: y.transpose(1, 2).flatten(2)  # noqa: E731
        x = x + self.out(join(F.scaled_dot_product_attention(*own, attn_mask=seen, is_causal=seen is None)))
        asked = self.split(self.ask(self.before_slots(x)))
        x = x + self.answer(join(F.scaled_dot_product_attention(asked, *slots)))
        out: Tensor = x + self.narrow(F.gelu(self.wide(self.before_mlp(x))))
        return out


class Reader(Decoder):
    """A Transformer over the slots of a memory, and the frozen encoder that it corrects, which is not part of its
    weights."""

    Options = ReaderOptions

    def __init__(self, encoder: Adapter, bos: int, eos: int, options: ReaderOptions, seed: int):
        super().__init__(bos, eos)
        # hidden from the module: neither trained nor saved with it
        self._frozen = (encoder,)
        embedding = encoder.model.get_input_embeddings()
        given = int(embedding.embedding_dim)
        width = options.width or given
        heads = options.heads or (width // HEAD if width % HEAD == 0 else 1)
        if width % heads:
            raise ModelError(
                f"a reader of width {width} cannot have {heads} heads",
                remedy="Give decoders.options width and heads of which the first is a multiple of the second",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slots = Slots(encoder, width, seed)
            self.inwards = nn.Linear(2 * given, width)
            layers = [Layer(width, heads) for _ in range(options.layers)]
            self.norm = nn.LayerNorm(width)
            self.outwards = nn.Linear(width, given, bias=False)
        for layer in layers:
            # as deep as it is, what it adds to the stream is as large (GPT-2)
            for last in (layer.out, layer.answer, layer.narrow):
                with torch.no_grad():
                    last.weight /= (3 * options.layers) ** 0.5
        self.layers: Any = nn.ModuleList(layers)
        nn.init.zeros_(self.outwards.weight)
        exact = torch.promote_types(next(encoder.parameters()).dtype, torch.float32)
        self.to(device=encoder.device, dtype=exact)

    @classmethod
    def make(cls, encoder: Loaded, bos: int, eos: int, options: Any, seed: int) -> Self:
        return cls(encoder.adapter, bos, eos, options, seed)

    @property
    def language(self) -> Adapter:
        return self._frozen[0]

    def empty(self, batch: int) -> Memory:
        return self.language.empty(batch)

    def hidden(self, memory: Memory, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            expected, _ = self.language.hidden(inputs, None)
        slots = self.slots(memory)
        x = self._inputs(expected, inputs, torch.arange(inputs.shape[1], device=inputs.device))
        for layer in self.layers:
            x = layer(x, layer.own(x), layer.of_slots(slots), None)
        return self._corrected(expected, x)

    def start(self, memory: Memory, room: int) -> Memory:
        slots = self.slots(memory)
        state = {f"language.{name}": part for name, part in self.language.empty(memory.batch).items()}
        state["place"] = torch.zeros(memory.batch, dtype=torch.int64, device=slots.device)
        for i, layer in enumerate(self.layers):
            keys, values = layer.of_slots(slots)
            state |= {f"{i}.slot_keys": keys, f"{i}.slot_values": values}
            nothing = keys.new_zeros(*keys.shape[:2], room, keys.shape[-1])
            state |= {f"{i}.keys": nothing, f"{i}.values": nothing}
        return Memory(state)

    def step(self, state: Memory, ids: Tensor) -> tuple[Tensor, Memory]:
        inputs, place = ids.unsqueeze(1), state["place"]
        before = Memory({part.name: state[f"language.{part.name}"] for part in self.language.spec().parts})
        expected, after = self.language.hidden(inputs, before)
        new = {**state, "place": place + 1, **{f"language.{name}": part for name, part in after.items()}}
        x = self._inputs(expected, inputs, place.unsqueeze(1))
        places = torch.arange(state["0.keys"].shape[2], device=ids.device)
        here = (places == place.unsqueeze(1))[:, None, :, None]
        seen = (places <= place.unsqueeze(1))[:, None, None, :]
        for i, layer in enumerate(self.layers):
            query, *own = layer.own(x)
            keys, values = (
                torch.where(here, one, state[f"{i}.{name}"]) for name, one in zip(("keys", "values"), own, strict=True)
            )
            new |= {f"{i}.keys": keys, f"{i}.values": values}
            x = layer(x, (query, keys, values), (state[f"{i}.slot_keys"], state[f"{i}.slot_values"]), seen)
        return self.language.head(self._corrected(expected, x)).squeeze(1), Memory(new)

    def _inputs(self, expected: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """What the first layer is given [B, T, d]."""
        with torch.no_grad():
            embedded = self.language.model.get_input_embeddings()(ids)
        # embeddings are small, and the expected has the size that its norm gives it
        both = [F.rms_norm(part.to(self.inwards.weight.dtype), part.shape[-1:]) for part in (expected, embedded)]
        x: Tensor = self.inwards(torch.cat(both, -1))
        return x + _waves(places, x.shape[-1]).to(x)

    def _corrected(self, expected: Tensor, x: Tensor) -> Tensor:
        return expected + self.outwards(self.norm(x)).to(expected.dtype)


def _waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of places [...], [..., d]; Vaswani et al. 2017, section 3.5."""
    even = width + width % 2
    rates = torch.exp(torch.arange(0, even, 2, device=places.device) * (-math.log(10_000.0) / even))
    angles = places.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[..., :width]


FAMILY = Reader

"""``bridged``: a language model that starts from a learnt linear map of the memory, so that any part of its own memory
may be read from any part of the encoder's; encoder and decoder may differ in size and architecture.

For part j of a kind of the decoder's memory, with z_i the encoder's parts in standard units (_units.py), as matrices
(channels x columns)::

    y_j = x_j  +  s_j ( sum_i m_ji z_i  +  U_j (sum_i w_ji (V_i z_i) R)  +  b_j )

    x_j    the encoder's part j as it is, where the decoder is the encoder's copy
    s_j    the deviations of the decoder's own numbers
    m_ji   a number for each channel, where both are of one kind (name and shape); begins at 0
    V_i    [rank, channels of i], begins at random; w_ji a number, R [columns of i, columns of j]
    U_j    [channels of j, rank], begins at 0
    b_j    the same for all windows, whatever was read; begins at 0

So it begins as ``native`` where the decoder is the encoder's copy, and as the language model that it is where it is
another.  The map is computed in the memory's own precision, whatever the rest is computed in.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mnemoscope.codec.families import native
from mnemoscope.codec.families._kinds import Kind
from mnemoscope.codec.families._units import Units
from mnemoscope.config.sections import PositiveInt
from mnemoscope.errors import ModelError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded, load
from mnemoscope.memory.memory import Memory


class BridgedOptions(native.NativeOptions):
    rank: PositiveInt = Field(64, description="rank of the maps from any part to any part")
    model: str | None = Field(
        None,
        description="embedded model, folder or hub name that it begins as; with the encoder's tokenizer. The encoder "
        "itself if left out",
    )
    revision: str | None = Field(None, description="of model")
    tokenizer: str | None = Field(None, description="where model brings none of its own")

    @model_validator(mode="after")
    def _of_a_model(self) -> BridgedOptions:
        if self.model is None and (self.revision or self.tokenizer) is not None:
            raise ValueError("revision and tokenizer are about model: give it, or leave them out")
        return self


class Bridge(nn.Module):
    """The map of memories; symbols as at the top of the file.

    Args:
        read, made: models whose memories it takes and gives.
        own: whether to each part that it gives the one of the same name is added as it is.
        seed: of V, w, R between unlike kinds, and of what the units are taken from.
    """

    def __init__(self, read: Adapter, made: Adapter, rank: int, own: bool, seed: int):
        super().__init__()
        self.own, self.read = own, Units(read, seed)
        self.given = None if own else Units(made, seed)
        generator = torch.Generator().manual_seed(seed)
        self.down, self.up, self.offset = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        self.mix, self.columns, self.channels = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()

        def drawn(*shape: int, inputs: int) -> nn.Parameter:
            # what comes out of so many inputs is as large as each of them
            return nn.Parameter(torch.randn(shape, generator=generator) / inputs**0.5)

        for i, kind in enumerate(self.read.kinds):
            self.down[f"{i}"] = drawn(len(kind.parts), rank, kind.channels, inputs=kind.channels)
        parts = sum(len(kind.parts) for kind in self.read.kinds)
        for j, target in enumerate(self.made.kinds):
            p, c, n = target.numbers
            self.up[f"{j}"], self.offset[f"{j}"] = _zeros(p, c, rank), _zeros(p, c, n)
            for i, kind in enumerate(self.read.kinds):
                self.mix[f"{j}_{i}"] = drawn(p, len(kind.parts), inputs=parts)
                alike = kind.columns == n
                self.columns[f"{j}_{i}"] = nn.Parameter(torch.eye(n)) if alike else drawn(kind.columns, n, inputs=n)
                if (kind.name, kind.shape) == (target.name, target.shape):
                    self.channels[f"{j}_{i}"] = _zeros(p, len(kind.parts), c)

    @property
    def made(self) -> Units:
        """Of the memories that it gives."""
        return self.given or self.read

    def forward(self, memory: Memory) -> Memory:
        exact = next(self.parameters())
        with torch.autocast(exact.device.type, enabled=False):
            return self._map(memory.map(lambda part: part.to(exact.dtype)))

    def _map(self, memory: Memory) -> Memory:
        read, windows = self.read(memory), memory.batch
        # [P, r, B N]
        codes = [torch.bmm(self.down[f"{i}"], z.flatten(2)) for i, z in enumerate(read)]
        parts: dict[str, Tensor] = {}
        for j, target in enumerate(self.made.kinds):
            p, c, n = target.numbers
            mixed = sum(
                (self.mix[f"{j}_{i}"] @ code.flatten(1)).view(-1, kind.columns) @ self.columns[f"{j}_{i}"]
                for i, (kind, code) in enumerate(zip(self.read.kinds, codes, strict=True))
            )
            offset = self.offset[f"{j}"].unsqueeze(2).expand(p, c, windows, n).flatten(2)
            y = torch.baddbmm(offset, self.up[f"{j}"], mixed.view(p, -1, windows * n))
            for i, z in enumerate(read):
                if f"{j}_{i}" in self.channels:
                    # channel by channel
                    map_, z = self.channels[f"{j}_{i}"].permute(2, 0, 1), z.flatten(2).transpose(0, 1)
                    y = torch.baddbmm(y.transpose(0, 1), map_, z).transpose(0, 1)
            parts |= self._given(j, target, y.unflatten(2, (windows, n)), memory)
        return Memory(parts)

    def _given(self, j: int, kind: Kind, y: Tensor, memory: Memory) -> dict[str, Tensor]:
        """The parts of a kind from what is added to them, y [P, C, B, N] in standard units."""
        found = {}
        for name, added, deviation in zip(kind.parts, y.transpose(1, 2), self.made.deviation(j), strict=True):
            own = memory[name].reshape(added.shape) if self.own else torch.zeros_like(added)
            found[name] = torch.addcmul(own, added, deviation).reshape(memory.batch, *kind.shape)
        return found


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class Bridged(native.Native):
    """A language model and the bridge to its memory; every weight of both is trained.

    Args:
        encoder: whose memories it is given.
        adapter: the decoder's own model.
    """

    Options = BridgedOptions

    def __init__(
        self,
        encoder: Adapter,
        adapter: Adapter,
        bos: int,
        eos: int,
        options: BridgedOptions,
        seed: int,
        origin: str = "",
    ):
        super().__init__(adapter, bos, eos, options.low_rank, origin)
        self.spec = encoder.spec()
        bridge = Bridge(encoder, adapter, options.rank, options.model is None, seed)
        # as the memories that it gives
        self.bridge = bridge.to(device=encoder.device, dtype=adapter.spec().parts[0].dtype)

    @classmethod
    def make(cls, encoder: Loaded, bos: int, eos: int, options: Any, seed: int) -> Self:
        reads = encoder.adapter
        if options.model is None:
            return cls(reads, native.own(reads), bos, eos, options, seed)
        other = load(
            options.model,
            revision=options.revision,
            tokenizer=options.tokenizer,
            dtype=str(next(reads.parameters()).dtype).removeprefix("torch."),
            scan=reads.scan,
        )
        assert encoder.tokenizer is not None
        assert other.tokenizer is not None
        if other.tokenizer.get_vocab() != encoder.tokenizer.get_vocab():
            raise ModelError(
                f"the decoder {options.model!r} has another vocabulary than the encoder {encoder.name!r}",
                remedy="Name a model with the encoder's tokenizer",
            )
        adapter = other.adapter.to(reads.device).requires_grad_(True)
        return cls(reads, adapter, bos, eos, options, seed, other.digest)

    def empty(self, batch: int) -> Memory:
        return self.spec.zeros(batch, self.device)

    def matrices(self) -> list[nn.Parameter]:
        return [*self.bridge.down.values(), *self.bridge.up.values()]

    def hidden(self, memory: Memory, inputs: Tensor) -> Tensor:
        return super().hidden(self.bridge(memory), inputs)

    def start(self, memory: Memory, room: int) -> Memory:
        return self.bridge(memory)


FAMILY = Bridged

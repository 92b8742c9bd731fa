"""``bridged``: a language model that starts from a learnt linear map of the memory, so that any part of its own memory
may be read from any part of the encoder's; encoder and decoder may differ in size and architecture.

For part j of a kind of the decoder's memory, with x_i the encoder's parts as matrices (channels x columns)::

    y_j = x_j  +  sum_i m_ji * x_i  +  U_j (sum_i w_ji (V_i x_i) R)  +  b_j

    x_j    its own part, where the decoder is the encoder's copy
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
from mnemoscope.config.sections import PositiveInt
from mnemoscope.errors import ModelError
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.load import Loaded, load
from mnemoscope.memory.memory import Memory, MemorySpec


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
        read, made: what memories it takes and gives.
        own: whether to each part that it makes the one of the same name is added as it is.
        generator: of V, and of R between unlike kinds.
    """

    def __init__(self, read: MemorySpec, made: MemorySpec, rank: int, own: bool, generator: torch.Generator):
        super().__init__()
        self.read, self.made, self.own = Kind.of(read), Kind.of(made), own
        self.dtype = torch.promote_types(made.parts[0].dtype, torch.float32)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, dtype=self.dtype))

        def drawn(*shape: int) -> nn.Parameter:
            # so that what comes out is as large as what goes in
            return nn.Parameter(torch.randn(shape, generator=generator, dtype=self.dtype) / shape[-1] ** 0.5)

        self.down, self.up, self.offset = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        self.mix, self.columns, self.channels = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for i, kind in enumerate(self.read):
            self.down[str(i)] = drawn(len(kind.parts), rank, kind.channels)
        parts = sum(len(kind.parts) for kind in self.read)
        for j, made_kind in enumerate(self.made):
            p, c, n = made_kind.numbers
            self.up[str(j)], self.offset[str(j)] = zeros(p, c, rank), zeros(p, c, n)
            for i, kind in enumerate(self.read):
                self.mix[f"{j}_{i}"] = drawn(p, len(kind.parts))
                with torch.no_grad():
                    self.mix[f"{j}_{i}"] *= (len(kind.parts) / parts) ** 0.5
                self.columns[f"{j}_{i}"] = (
                    nn.Parameter(torch.eye(n, dtype=self.dtype))
                    if kind.columns == n
                    else nn.Parameter(drawn(n, kind.columns).detach().T.contiguous())
                )
                if (kind.name, kind.shape) == (made_kind.name, made_kind.shape):
                    self.channels[f"{j}_{i}"] = zeros(p, len(kind.parts), c)

    def forward(self, memory: Memory) -> Memory:
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return self._map(memory.map(lambda part: part.to(self.dtype)))

    def _map(self, memory: Memory) -> Memory:
        read = [kind.stacked(memory) for kind in self.read]
        codes = [torch.einsum("prc,bpcn->bprn", self.down[str(i)], x) for i, x in enumerate(read)]
        parts: dict[str, Tensor] = {}
        for j, kind in enumerate(self.made):
            code = sum(
                torch.einsum("jp,bprn,nm->bjrm", self.mix[f"{j}_{i}"], code, self.columns[f"{j}_{i}"])
                for i, code in enumerate(codes)
            )
            y = torch.einsum("jcr,bjrm->bjcm", self.up[str(j)], code) + self.offset[str(j)]
            for i, x in enumerate(read):
                if f"{j}_{i}" in self.channels:
                    y = y + torch.einsum("jpc,bpcn->bjcn", self.channels[f"{j}_{i}"], x)
            parts |= kind.parted(y)
        return Memory({name: part + memory[name] for name, part in parts.items()} if self.own else parts)


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
        generator = torch.Generator().manual_seed(seed)
        own = options.model is None
        self.bridge = Bridge(self.spec, adapter.spec(), options.rank, own, generator).to(encoder.device)

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

    def hidden(self, memory: Memory, inputs: Tensor) -> Tensor:
        return super().hidden(self.bridge(memory), inputs)

    def start(self, memory: Memory, room: int) -> Memory:
        return self.bridge(memory)


FAMILY = Bridged

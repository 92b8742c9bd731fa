"""The standard units of a memory: each of its numbers less its mean, by its deviation.

Numbers of one memory differ in size by factors of ten thousand (measured: deviations from 1e-5 to 0.3 in the SSM states
of mamba-nano), so that a map of them as they are sees the large ones alone, and one step of an optimiser drowns the
small ones.  Means and deviations are those over texts that the model itself makes up; those of real texts are within a
few per cent of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mnemoscope.codec.families._kinds import Kind
from mnemoscope.memory.adapter import Adapter
from mnemoscope.memory.memory import Memory

#: texts that the model makes up: so many, of so many tokens
TEXTS, TOKENS = 64, 32
#: least deviation of a number, as a share of those of its part: what hardly changes says little
LEAST = 1e-3


class Units(nn.Module):
    """Standard units of each kind of a model's memory, which are kept with the weights.

    Attributes:
        kinds: in order of first appearance.
    """

    def __init__(self, model: Adapter, seed: int):
        super().__init__()
        self.kinds = Kind.of(model.spec())
        texts = made_up(model, torch.Generator().manual_seed(seed))
        for number, kind in enumerate(self.kinds):
            values = kind.stacked(texts)
            deviation = values.std(0)
            floor = LEAST * deviation.square().mean((1, 2), keepdim=True).sqrt()
            deviation = deviation.maximum(floor)
            self.register_buffer(f"mean_{number}", values.mean(0))
            self.register_buffer(f"deviation_{number}", torch.where(deviation > 0, deviation, 1.0))

    def deviation(self, number: int) -> Tensor:
        """Of the numbers of a kind [P, C, N]."""
        found: Tensor = getattr(self, f"deviation_{number}")
        return found

    def forward(self, memory: Memory) -> list[Tensor]:
        """Each kind of a memory in standard units [P, C, B, N]: a map of channels is then one product of matrices for
        each part."""
        found = []
        for number, kind in enumerate(self.kinds):
            mean, deviation = getattr(self, f"mean_{number}"), self.deviation(number)
            found.append(kind.by_channels(memory).sub_(mean.unsqueeze(2)).div_(deviation.unsqueeze(2)))
        return found


@torch.no_grad()
def made_up(model: Adapter, generator: torch.Generator) -> Memory:
    """Memories after texts that a model draws, token by token, from what it expects; the first token of each from all
    alike."""
    ids = torch.randint(model.vocabulary, (TEXTS, 1), generator=generator).to(model.device)
    memory = model.empty(TEXTS)
    for _ in range(TOKENS):
        logits, memory = model(ids, memory)
        # on the CPU, so that a seed means the same on every device
        chances = logits[:, -1].float().softmax(-1).cpu()
        ids = torch.multinomial(chances, 1, generator=generator).to(model.device)
    return memory

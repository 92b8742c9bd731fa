"""Greedy reconstruction from a memory alone.  The length comes from the window; there is no cap and no default."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mnemoscope.codec.decoder import Decoder
from mnemoscope.memory.memory import Memory

#: steps between looks at which rows have ended; each look waits for the device
LOOK_EVERY = 8


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Greedy output for one window: ids up to and without EOS, and whether EOS came."""

    ids: list[int]
    stopped: bool


@torch.no_grad()
def reconstruct(decoder: Decoder, memory: Memory, length: int) -> list[Reconstruction]:
    """Writes each window of a batch from its memory, taking the most likely token at every step.

    Stops a row at EOS, or after ``2 * length`` tokens.  Rows do not influence one another.

    Args:
        memory: of B windows of ``length`` tokens.
    """
    batch, limit = memory.batch, 2 * length
    device = decoder.adapter.device
    written = torch.full((batch, limit), decoder.eos, dtype=torch.int64, device=device)
    rows = torch.arange(batch, device=device)
    token = torch.full((batch, 1), decoder.bos, dtype=torch.int64, device=device)
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    for step in range(limit):
        logits, memory = decoder.adapter(token, memory)
        token = logits.argmax(-1)
        token = torch.where(ended.unsqueeze(1), decoder.eos, token)
        written[rows, step] = token.squeeze(1)
        ended = ended | (token.squeeze(1) == decoder.eos)
        if (step + 1) % LOOK_EVERY == 0:
            going: Tensor = (~ended).nonzero().squeeze(1)
            if len(going) == 0:
                break
            # rows that have ended cost as much as the others: drop them once they are half
            if len(going) <= len(rows) // 2:
                rows, token, ended, memory = rows[going], token[going], ended[going], memory.rows(going)
    out = []
    for ids in written.tolist():
        stopped = decoder.eos in ids
        out.append(Reconstruction(ids[: ids.index(decoder.eos)] if stopped else ids, stopped))
    return out

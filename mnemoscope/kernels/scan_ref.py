"""The selective scan, written as its definition: the slow truth that every other backend is compared with.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t        y_t = (C_t . h_t + D u_t) silu(z_t)

Mamba (Gu & Dao 2023), equations 2-4 with the discretisation of section 3.2 (zero-order hold for A, Euler for B); with
A, D and dt constant over the channels of a head it is Mamba-2 (Dao & Gu 2024, section 7).

Symbols: B windows, L tokens, D channels, N numbers of state per channel, G groups of channels sharing B_t and C_t.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    start: Tensor,
) -> tuple[Tensor, Tensor]:
    """One scan over time, from ``start`` to the state after the last token.

    Args:
        u: input [B, L, D].
        dt: step size [B, L, D]; if ``dt_bias`` is given, softplus(dt + dt_bias) is what is used.
        A: [D, N], negative.
        B, C: input and output maps [B, L, G, N]; channel d belongs to group d // (D / G).
        D: skip [D].
        z: gate [B, L, D], or None for none.
        dt_bias: [D] or None.
        start: state before the first token [B, D, N], in the dtype that the scan is computed in.

    Returns:
        y [B, L, D] in u's dtype and the state after the last token [B, D, N] in start's dtype.
        Autograd reaches every argument, ``start`` included, from both.
    """
    batch, length, channels = u.shape
    groups, n = B.shape[2], B.shape[3]
    per = channels // groups
    exact = start.dtype
    uf, dtf, Bf, Cf = (x.to(exact) for x in (u, dt, B, C))
    if dt_bias is not None:
        dtf = F.softplus(dtf + dt_bias.to(exact))
    Ag = A.to(exact).view(groups, per, n)
    h = start.view(batch, groups, per, n)
    dtg = dtf.view(batch, length, groups, per, 1)
    xg = (dtf * uf).view(batch, length, groups, per, 1)
    y = []
    # unbind, not indexing: the backward of an index fills a whole [B, L, ...] tensor at every step
    for dt_t, x_t, B_t, C_t in zip(dtg.unbind(1), xg.unbind(1), Bf.unbind(1), Cf.unbind(1), strict=True):
        h = torch.exp(dt_t * Ag) * h + x_t * B_t.unsqueeze(2)
        y.append((h @ C_t.unsqueeze(3)).squeeze(3))
    out = torch.stack(y, 1).view(batch, length, channels) + D.to(exact) * uf
    if z is not None:
        out = out * F.silu(z.to(exact))
    return out.to(u.dtype), h.reshape(batch, channels, n)

"""How the cost of our auto-encoder step grows with length, batch, width and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.contest import Contestant, Patience, Row, contest
from benchmarks.cost import MAMBA_130M, Shape, exponent
from benchmarks.models import Job, ours


def run(device: torch.device, quick: bool, patience: Patience) -> Iterator[Row]:
    """The last row of each series carries the exponents: over all of it, and over its larger half, where the fixed
    cost of a step no longer counts."""
    gpu = device.type == "cuda"
    precision = "bf16" if gpu else "fp32"
    base = Job(MAMBA_130M if gpu else Shape(128, 2, 4096), 256, 16 if gpu else 2, precision, device)
    top = 16384
    series: dict[str, list[tuple[int, Job]]] = {
        "length": [
            (n, replace(base, length=n, windows=2 if gpu else 1))
            for n in ([256, 2048, top] if quick else [64, 256, 1024, 4096, top])
        ],
        "batch": [(n, replace(base, windows=n)) for n in ([4, 16, 64] if gpu else [1, 4, 16])],
        "width": [
            (n, replace(base, shape=replace(base.shape, width=n)))
            for n in ([256, 768] if quick else [256, 512, 768, 1024, 1536] if gpu else [64, 128, 256])
        ],
        "depth": [
            (n, replace(base, shape=replace(base.shape, layers=n)))
            for n in ([6, 24] if quick else [6, 12, 24, 48] if gpu else [1, 2, 4])
        ],
    }
    for name, jobs in series.items():
        rows: list[Row] = []
        for size, job in jobs:
            work = f"step by {name}: {size:,} ({job.shape.width} wide, {job.shape.layers} deep, {job.windows} windows)"
            rows += contest("scaling", work, [Contestant("mnemoscope", ours(job))], patience)
        done = [(size, row.median) for (size, _), row in zip(jobs, rows, strict=True) if row.seconds]
        if len(done) > 1:
            rows[-1].facts["exponent"] = exponent(*zip(*done, strict=True))
            rows[-1].facts["exponent of the larger half"] = exponent(*zip(*done[(len(done) - 1) // 2 :], strict=True))
        yield from rows

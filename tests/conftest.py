"""Puts tests/ on the path, so that tests in its folders can import its helpers."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    # its interpreter runs Triton's kernels on the CPU; said here, since it counts only before Triton is first imported,
    # which transformers does with some models
    os.environ.setdefault("TRITON_INTERPRET", "1")

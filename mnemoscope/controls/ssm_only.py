"""Only the recurrent (SSM) states, with the convolution states zero: what is kept beyond the last few tokens."""

from __future__ import annotations

from mnemoscope.controls._altered import SomeParts, kind_of


class SsmOnly(SomeParts):
    def keeps(self, part: str) -> bool:
        return kind_of(part) == "ssm"


CONDITION = SsmOnly("ssm_only")

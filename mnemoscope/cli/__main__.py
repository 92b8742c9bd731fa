"""``python -m mnemoscope.cli``, for launchers that start modules."""

from mnemoscope.cli import main

main()

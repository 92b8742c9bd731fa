"""The auto-encoder: a frozen model reads a window into its memory, a decoder writes it back from there."""

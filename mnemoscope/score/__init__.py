"""From what the decoder wrote to numbers: align, count, and keep one row per token and per window."""

"""Puts tests/ on the path, so that tests in its folders can import its helpers."""

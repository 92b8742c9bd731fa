"""Charts -> figures: matplotlib for paper, plotly for the page.  Pure functions; nothing is read, written or global.

Both label lines at their ends instead of in a legend, and tell series apart by marker as well as by colour.
"""

from mnemoscope.report.figures.on_page import page
from mnemoscope.report.figures.on_paper import draw, paper

__all__ = ["draw", "page", "paper"]

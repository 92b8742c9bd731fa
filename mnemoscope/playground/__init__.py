"""The playground: one text, one window that moves along it, and what its memory gives back.  Science in ``session`` and
``places``, what the page is told in ``play``, the server in ``app``."""

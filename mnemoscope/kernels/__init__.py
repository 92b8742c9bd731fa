"""The selective scan and the causal convolution, with a start state in and the final state out.

``scan.py`` and ``conv.py`` are what the rest of the package calls; they choose the backend, nobody else does.
"""

"""From files to windows: ``corpora`` reads documents, ``tokens`` spells them, ``windows`` cuts them.

``Corpus → Document → token ids with character spans → Window``
"""

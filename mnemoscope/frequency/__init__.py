"""How often something occurs in a corpus: counted by ourselves (:mod:`count`), or asked of an infini-gram index."""

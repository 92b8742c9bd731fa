"""The omission rate as it was published (arXiv 2512.15653), over words: to be laid beside ours, faults and all.

    reference         words of the data set, as its annotators cut them      the cat " sat " , the end
    reconstruction    words of NLTK's ``word_tokenize``                      the cat `` sat '' the
    present           (the, 1) (cat, 1) (sat, 1) (the, 2)                    omitted: " " , end

A reference word is omitted unless its k-th occurrence in the window has a k-th occurrence in the reconstruction, same
case, wherever.  The two word lists come from two tokenizers, so that even a perfect reconstruction omits words: the
quotation marks above, ``C$``, ``Cannot``.  Our own ``omission_words`` and ``omission_anywhere`` do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnemoscope.errors import ConfigError
from mnemoscope.score.align import recovered_anywhere

Tokenize = Callable[[str], list[str]]


def omitted(words: Sequence[str], reconstruction: str, tokenize: Tokenize) -> npt.NDArray[np.bool_]:
    """Which of a window's reference words the reconstruction omits, bool [words]."""
    return ~recovered_anywhere(words, tokenize(reconstruction))


def tokenizer(sentences: Literal["punkt", "untrained"]) -> Tokenize:
    """NLTK's ``word_tokenize`` for English, which cuts a text into sentences first: a full stop is a word of its own
    only at the end of one.

    Args:
        sentences: ``punkt`` is NLTK's, with its English model, which NLTK does not bring; ``untrained`` is the same
            algorithm knowing no abbreviation, so that the stop of "Mr." is cut off before a capital.

    Raises:
        ConfigError: the English model is not installed.
    """
    from nltk.tokenize import NLTKWordTokenizer, word_tokenize
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    if sentences == "punkt":
        try:
            word_tokenize("One. Two.")
        except LookupError:
            raise ConfigError(
                "the published word lists need NLTK's English model of sentences, which is not installed",
                remedy="Install it: python -m nltk.downloader punkt_tab; or give sentences = 'untrained'",
            ) from None
        return word_tokenize  # type: ignore[no-any-return]
    cut, split = NLTKWordTokenizer(), PunktSentenceTokenizer()
    return lambda text: [word for sentence in split.tokenize(text) for word in cut.tokenize(sentence)]

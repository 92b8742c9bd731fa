"""A byte-level BPE from a corpus, with the one special token that begins and ends texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mnemoscope.types import Document

END_OF_TEXT = "<|endoftext|>"


def sample(documents: Iterable[Document], budget: int) -> list[str]:
    """About ``budget`` bytes of UTF-8: the same share of every document, from its beginning."""
    texts = [d.text for d in documents]
    share = min(1.0, budget / max(1, sum(len(t.encode()) for t in texts)))
    return [t[: round(len(t) * share)] for t in texts]


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, folder: Path, progress: Callable[[str], None]
) -> PreTrainedTokenizerFast:
    """Learns ``vocabulary`` tokens and writes tokenizer.json and tokenizer_config.json into ``folder``.

    ``<|endoftext|>`` has id 0, as in GPT-NeoX's; digits, spaces and marks are pre-split as GPT-2's are.
    """
    progress("learning the tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(str(folder))
    return fast

"""A model's tokenizer: read from ``tokenizer.json`` alone, and checked against the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerFast

from mnemoscope.errors import ModelError
from mnemoscope.memory import original
from mnemoscope.memory.source import AGAIN, Source, find, read_json


def read_tokenizer(
    source: Source, chosen: str | None, config: Any, is_original: bool
) -> tuple[PreTrainedTokenizerFast, list[Path]]:
    """The tokenizer of a model, and the files it was read from.

    Args:
        source: the model's files.
        chosen: folder or hub name of the tokenizer, if it is not the model's own.
        config: the model's configuration.
        is_original: the model has the authors' layout, which brings no tokenizer but always means the same one.

    Raises:
        ModelError: there is none, it is corrupt, or it does not fit the model.
    """
    origin = source if chosen is None else find(chosen)
    file = origin.get("tokenizer.json")
    if file is None and chosen is None and is_original:
        try:
            origin = find(original.TOKENIZER)
            file = origin.get("tokenizer.json")
            if file is None:
                raise origin.missing("tokenizer.json", "")
        except ModelError as error:
            raise ModelError(
                f"{source.name!r} brings no tokenizer, and {original.TOKENIZER}, which its authors use, cannot be had: "
                f"{error.problem}",
                remedy="Give tokenizer = a folder or hub name that holds that tokenizer.json",
            ) from error
    if file is None:
        raise origin.missing("tokenizer.json", "Give tokenizer = a folder or hub name that has one")
    specials, files = _specials(origin)
    tokenizer = _build(file, specials)
    if rows(tokenizer) > config.vocab_size:
        raise ModelError(
            f"the tokenizer of {origin.name!r} has {rows(tokenizer)} ids, the model {source.name!r} "
            f"{config.vocab_size} vocabulary rows",
            remedy="Give the tokenizer that the model was trained with",
        )
    special_tokens(tokenizer, config)
    return tokenizer, [file, *files]


def named_tokenizer(name: str) -> tuple[PreTrainedTokenizerFast, list[Path]]:
    """The tokenizer of an embedded model, folder or hub name, for a model that is yet to be made; and its files.

    Raises:
        ModelError: there is none, it is corrupt, or it names no token that begins or ends a text.
    """
    origin = find(name)
    file = origin.get("tokenizer.json")
    if file is None:
        raise origin.missing("tokenizer.json", "Name a folder or a model that has one")
    specials, files = _specials(origin)
    if not specials:
        raise ModelError(
            f"the tokenizer of {name!r} names no token that begins or ends a text",
            remedy="Set bos_token or eos_token in tokenizer_config.json",
        )
    first, last = specials.get("bos_token"), specials.get("eos_token")
    # where one of the two is missing the other serves for both, as in special_tokens
    return _build(file, {"bos_token": first or last or "", "eos_token": last or first or ""}), [file, *files]


def special_tokens(tokenizer: PreTrainedTokenizerFast, config: Any) -> tuple[int, int]:
    """Ids of the tokens that begin and end a text: the tokenizer's own, else the configuration's.

    Where one of the two is missing the other serves for both, as GPT-NeoX's ``<|endoftext|>`` does.  The
    configuration's id counts only if the tokenizer calls that token special: library classes have ids by default.

    Raises:
        ModelError: there is neither.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}

    def of_config(field: str) -> int | None:
        value: Any = getattr(config, field, None)
        first = value[0] if isinstance(value, list) and value else value
        return int(first) if first in special else None

    bos: int | None = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else of_config("bos_token_id")
    eos: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else of_config("eos_token_id")
    bos, eos = (eos if bos is None else bos), (bos if eos is None else eos)
    if bos is None or eos is None:
        raise ModelError(
            f"the tokenizer ({rows(tokenizer)} ids, {len(special)} of them special) has no token that begins or ends "
            f"a text, and the model ({config.vocab_size} vocabulary rows) names none of its special ones",
            remedy="Set bos_token or eos_token in tokenizer_config.json",
        )
    return bos, eos


def _specials(source: Source) -> tuple[dict[str, str], list[Path]]:
    """The tokens that ``source`` names as first and last of a text, and the files that say so."""
    specials: dict[str, str] = {}
    files = []
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = source.get(name)
        if file is not None:
            files.append(file)
            values = read_json(file)
            for key in ("bos_token", "eos_token"):
                token = values.get(key)
                token = token.get("content") if isinstance(token, dict) else token
                if isinstance(token, str):
                    specials[key] = token
    return specials, files


def _build(file: Path, specials: dict[str, str]) -> PreTrainedTokenizerFast:
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises nothing narrower
        raise ModelError(f"not a tokenizer: {error}", remedy=AGAIN, file=file) from error
    for key, token in specials.items():
        # the library would add it, with an id that the model was never trained on
        if backend.token_to_id(token) is None:
            raise ModelError(f"has no token {token!r}, which is to be its {key}", remedy="Mend either file", file=file)
    # a text is windowed here, never cut or filled by its tokenizer
    backend.no_truncation()
    backend.no_padding()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **specials)


def rows(tokenizer: PreTrainedTokenizerFast) -> int:
    """The least vocabulary that holds every id."""
    return int(max(tokenizer.get_vocab().values(), default=-1)) + 1

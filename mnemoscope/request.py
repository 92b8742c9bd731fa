"""The studies that command lines ask for without a study file: a model, texts, and a decoder that is there or is to be
trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mnemoscope import config, plugins, zoo
from mnemoscope.errors import ConfigError, ModelError
from mnemoscope.memory.source import find
from mnemoscope.trained import beyond, file_of, read

#: in a step of a decoder that is trained here, at least; the run's study.toml has them, to be changed there
BATCH_TOKENS = 2048
#: classes that the page compares if nothing is asked for: found by rules, in any text
KINDS = ("names", "numbers")


class Trained(NamedTuple):
    """Decoders that are trained: where they lie, how a study names them, and for what."""

    folder: Path
    weights: str
    lengths: list[int]
    seeds: list[int]

    def require(self, lengths: Sequence[int]) -> None:
        """Raises ConfigError where windows are shorter or longer than all that the decoders have learnt to read."""
        if unlearnt := beyond(self.lengths, lengths):
            raise ConfigError(
                f"this decoder {unlearnt}",
                remedy="Ask for such lengths, or train a decoder on others",
                file=self.folder,
            )


def trained(model: str, given: Path | None) -> Trained | None:
    """The decoders in a folder, or in the one run that it holds; if none is given, those shipped with the model, or
    None if there are none.

    Raises:
        ModelError: no decoders in the folder, several, or damaged ones; or no such model.
    """
    if given is None:
        find(model)
        folder, weights = zoo.folder() / model / "decoders", model
        if not file_of(folder).exists():
            return None
    else:
        places = [f for f in (given, *given.glob("*"), *given.glob("checkpoints/*")) if file_of(f).exists()]
        if len(places) != 1:
            held = f"several: {', '.join(map(str, sorted(places)))}" if places else "none"
            raise ModelError(
                f"one folder of trained decoders is wanted here, and there are {held}",
                remedy="Give RUN/checkpoints/NAME of a run whose decoders are trained (mnemoscope train RUN)",
                file=given,
            )
        folder, weights = places[0], str(places[0].absolute())
    about = read(folder)
    return Trained(folder, weights, about.lengths, about.seeds)


def whole_numbers(given: str, option: str, example: str) -> list[int]:
    """Numbers with commas between them.

    Raises:
        ConfigError: something else.
    """
    try:
        return [int(part) for part in given.split(",")]
    except ValueError:
        raise ConfigError(
            f"{option} takes whole numbers with commas between them, not {given!r}", remedy=f"Such as {example}"
        ) from None


def checked(values: dict[str, Any]) -> config.Study:
    """The study with these values, its paths taken from the working folder.

    Raises:
        ConfigError: a value that no study may have.
    """
    try:
        made = config.Study.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {message}", remedy="Mend that option") from None
    return config.resolve(made, Path.cwd())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is to be measured, from texts to the page.

    Attributes:
        model: embedded name, folder, or hub name.
        files: texts to measure: files, folders or globs.
        lengths: of windows in tokens, rising, with commas between them; None: those that the trained decoder knows and
            the texts have.
        decoder: a folder of trained decoders, or a run that holds one; None: the one shipped with the model, unless
            ``tokens`` says that one is to be trained.
        train: texts that a decoder learns on, none of them among ``files``.
        tokens: how many window tokens it is trained on, over all lengths.
        learning_rate: the peak of its training.
        kinds: classes of tokens to compare, ``KIND`` or ``KIND:ARGUMENT``, a file in annotate/; named after the kind.
        text: field of a record that holds the text.
        domain: field of a record that holds its kind of text; None: each file is one.
        tokens_per_length: at most so many tokens' worth of windows at each length.
    """

    model: str
    files: Sequence[str]
    lengths: str | None = None
    decoder: Path | None = None
    train: Sequence[str] = ()
    tokens: int | None = None
    learning_rate: float | None = None
    kinds: Sequence[str] = KINDS
    text: str = "text"
    domain: str | None = None
    tokens_per_length: int
    seed: int = 0
    device: str = "auto"

    def study(self) -> config.Study:
        """Raises: ConfigError, ModelError, TextError: no decoder and none to be trained, or an option is wrong."""
        wanted = None if self.lengths is None else whole_numbers(self.lengths, "--lengths", "16,64,256")
        decoder: dict[str, Any]
        training = {"--train": self.train, "--tokens": self.tokens, "--learning-rate": self.learning_rate}
        of_training = [option for option, value in training.items() if value]
        found = None if of_training and self.decoder is None else trained(self.model, self.decoder)
        if found is not None:
            if of_training:
                raise ConfigError(
                    f"{of_training[0]} is about training, and --decoder names a trained one", remedy="Leave one out"
                )
            lengths = wanted or found.lengths
            found.require(lengths)
            decoder = {"name": "decoder", "recipe": "trained", "weights": found.weights, "seeds": found.seeds}
        else:
            missing = [option for option in training if option not in of_training]
            if missing or wanted is None:
                raise ConfigError(
                    f"no decoder is shipped with {self.model!r}, and a memory tells nothing by itself: to train one, "
                    f"{', '.join(missing + ([] if wanted else ['--lengths']))} must be given",
                    remedy="Such as --train 'texts/*.txt' --tokens 10000000 --learning-rate 1e-3 --lengths 16,64; or "
                    "give a trained one: --decoder RUN/checkpoints/NAME",
                )
            lengths = wanted
            decoder = {"name": "decoder", "recipe": "growing", "seeds": [self.seed], "tokens": self.tokens}
            decoder |= {"batch_tokens": BATCH_TOKENS, "optimiser": {"learning_rate": self.learning_rate}}
        named = [kind.partition(":")[::2] for kind in self.kinds]
        for kind, _ in named:
            plugins.load("annotation", kind)
        field = {"text": self.text} | ({"domain": self.domain} if self.domain else {})
        by = ["domain" if self.domain else "source", "position", *(kind for kind, _ in named)]
        values = {
            "name": "measure",
            "seed": self.seed,
            "model": {"name": self.model},
            "compute": {"device": self.device},
            "text": {
                "train": [{"path": path} | field for path in self.train],
                "measure": [{"path": path} | field for path in self.files],
            },
            "windows": {"lengths": lengths, "tokens_per_length": self.tokens_per_length},
            "annotations": [{"name": kind, "kind": kind, "argument": argument} for kind, argument in named],
            "decoders": [decoder | {"conditions": ["memory", "none"]}],
            "estimate": {"by": by},
        }
        made = checked(values)
        if wanted is None:
            return _shortened(made)
        return made


def _shortened(study: config.Study) -> config.Study:
    """The study without the lengths that no text of it has, unless it has none of them: its run then says so."""
    from mnemoscope.memory.load import load
    from mnemoscope.text import corpora
    from mnemoscope.text.tokens import encode_documents

    assert study.model is not None
    assert study.windows is not None
    tokenizer = load(study.model.name).tokenizer
    longest = max((len(e.ids) for _, e in encode_documents(tokenizer, corpora.read(study.text.measure))), default=0)
    lengths = [length for length in study.windows.lengths if length <= longest] or study.windows.lengths
    return study.model_copy(update={"windows": study.windows.model_copy(update={"lengths": lengths})})

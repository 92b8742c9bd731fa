"""Whose loss is it: certainly lost <= forgotten <= not recovered by the best reader, of the same windows.

study -> a run of every decoder and search -> its certificate, of its own windows -> bracket -> page
"""

from __future__ import annotations

from pathlib import Path

from mnemoscope import certificate, config, pipeline
from mnemoscope.errors import ConfigError
from mnemoscope.progress import Progress
from mnemoscope.rundir import RunDir
from mnemoscope.stats import bracket as table
from mnemoscope.workshop import Workshop


def bracket(
    study: config.Study, out: str | Path, settings: certificate.Settings, progress: Progress | None = None
) -> RunDir:
    """A run of the study and the bracket of it; the same call after an interruption goes on.

    Writes the tables of a run, ``certificate/``, ``floors.parquet``, ``horizons.parquet``, ``bracket.parquet`` and the
    page.

    Raises:
        MnemoscopeError: whatever is wrong with the study, its text or its model, before any long work.
    """
    _require(study, settings)
    run = pipeline.run(study, out, progress, until="estimate")
    return _add(run, settings, progress)


def of_run(folder: str | Path, settings: certificate.Settings, progress: Progress | None = None) -> RunDir:
    """The same of a run that is there: its model and texts are checked to be those that it was made from, and what it
    lacks is made.

    Raises:
        MnemoscopeError: there is no such run, or what it was made from has changed.
    """
    study = RunDir.open(folder).study
    return bracket(study, folder, settings, progress)


def _require(study: config.Study, settings: certificate.Settings) -> None:
    if not any("memory" in d.conditions for d in study.decoders):
        raise ConfigError(
            "no decoder of this study is given the memory, so nothing is known from above",
            remedy="Add the condition memory",
        )
    kept = table.KEPT_AT.get(study.model.dtype if study.model else "")
    if kept not in settings.precisions:
        raise ConfigError(
            f"the certificate is not of the precision at which this model keeps its memory ({kept or 'float64'})",
            remedy="Certify at that precision too, or load the model in float32",
        )


def _add(run: RunDir, settings: certificate.Settings, progress: Progress | None) -> RunDir:
    certificate.within(Workshop(run, progress), settings)
    with run.stage("bracket"):
        table.write(run.path, run.study)
    pipeline.again("report", run.path, progress)
    return run

"""What a report lets be heard and seen: mistakes, tested clips, what augmentation did."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from audioml.assembly import build_frontend
from audioml.augment import Augment
from audioml.datasets.manifest import Clip
from audioml.decode import DecodeError, thread_pool
from audioml.explore.augmentation import Change, Demonstration
from audioml.explore.examples import Example, read_waveform
from audioml.explore.exploration import for_looking
from audioml.explore.figures import plot_change, plot_example
from audioml.frontend import BandLevels
from audioml.model_files import FILE_NAME, read_model
from audioml.pages import audio_uri, picture_uri
from audioml.predictions import EVEN
from audioml.report.content import Content

MOST_PICTURED: Final = 12  # mistakes
MOST_HEARD: Final = 40  # tested clips: encoding one takes a tenth of a second
_LONGEST_S: Final = 10.0
_N_DEMONSTRATED: Final = 2  # training clips
_SHOWN: Final = ("original", "noise", "pitch", "stretch", "all", "pitchUp2", "stretch0.9", "noisy")
_N_TOGETHER: Final = 2
_TITLES: Final = {"original": "As it is", "all": "All together"}


class Sounds:
    """The sounds of a report.

    Args:
        content: The run.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.clips = content.clips()
        config = content.config
        self.augment = Augment(
            config.augment,
            sample_rate=config.audio.sample_rate,
            n_time=config.audio.n_time,
            seed=config.train.seed,
        )
        self.frontend = self._make_frontend()

    def choose_mistakes(self) -> list[int]:
        """Choose the mistakes that the model was surest of, by their rows in the predictions.

        Of several classes at once a clip counts for the one that the model was most wrong about.
        """
        results = self.content.results
        if results.is_multi_label:
            target, probability = results.target, results.probability
            sureness = np.abs(target - probability).max(axis=1)
            wrong = np.flatnonzero((target != (probability >= EVEN)).any(axis=1))
        else:
            sureness = results.probability.max(axis=1)
            wrong = np.flatnonzero(~results.is_right)
        rows: list[int] = wrong[np.argsort(-sureness[wrong], kind="stable")].tolist()
        return rows

    def choose_heard(self) -> list[int]:
        """Choose clips to listen to: the mistakes, then the classes' others in turn."""
        results = self.content.results
        right = results.predictions[results.is_right]
        turn = right.groupby("label", sort=False).cumcount().to_numpy()
        order = np.argsort(turn, kind="stable")
        others: list[int] = np.flatnonzero(results.is_right)[order].tolist()
        return (self.choose_mistakes() + others)[:MOST_HEARD]

    def pictures(self, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Draw waveform and log-mel of tested clips; of those that can be decoded."""
        for row in rows:
            waveform = self._read(self.clips[row])
            if waveform is None:
                continue
            with torch.no_grad():
                level_db = self.frontend(torch.from_numpy(waveform)[None])[0].numpy()
            example = Example(clip=row, row=pd.Series(), waveform=waveform, level_db=level_db)
            yield row, picture_uri(plot_example(example, self.frontend), dpi=130)

    def audio(self, rows: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Encode tested clips; those that can be decoded."""

        def encode(row: int) -> str | None:
            waveform = self._read(self.clips[row])
            return None if waveform is None else audio_uri(waveform, self.frontend.sample_rate)

        with thread_pool() as pool:
            for row, audio in zip(rows, pool.map(encode, rows), strict=True):
                if audio is not None:
                    yield row, audio

    def demonstrations(self) -> Iterator[dict[str, Any]]:
        """Show what augmentation did to a few training clips."""
        config, manifest = self.content.config, self.content.manifest
        if manifest is None or config.augment.preset == "none" or self.frontend.trainable:
            return
        frontend = self._with_statistics()
        for number, partner in self._choose_pairs():
            waveforms = [self._read(manifest.clips[n]) for n in (number, partner)]
            known = [w for w in waveforms if w is not None]
            if len(known) < len(waveforms):
                continue
            demonstration = Demonstration(config, frontend, self.augment, (number, partner), known)
            yield self._show(manifest.clips[number], demonstration, frontend)

    def _show(
        self, clip: Clip, demonstration: Demonstration, frontend: BandLevels
    ) -> dict[str, Any]:
        """Draw and encode what was done to a clip."""
        changes = [change for change in demonstration.changes() if change.name in _SHOWN]
        alone = [change for change in changes if change.name != "all"]
        together = [change for change in changes if change.name == "all"][:_N_TOGETHER]
        top_db = float(changes[0].level_db.max())
        return {
            "name": clip.path.name,
            "label": clip.label,
            "cards": [self._show_change(c, top_db, frontend) for c in alone + together],
        }

    def _show_change(self, change: Change, top_db: float, frontend: BandLevels) -> dict[str, Any]:
        value = "" if change.name == "original" else change.value
        when = ""
        if change.epoch is not None:
            is_over = change.epoch > self.content.config.train.epochs
            when = " (were there more epochs)" if is_over else f" (epoch {change.epoch})"
        waveform = change.waveform
        return {
            "title": _TITLES.get(change.name, change.name.capitalize()),
            "value": f"{value}{when}",
            "picture": picture_uri(plot_change(change, top_db, frontend), dpi=120),
            "audio": None if waveform is None else audio_uri(waveform, frontend.sample_rate),
        }

    def _choose_pairs(self) -> list[tuple[int, int]]:
        """Choose training clips of different classes, each with a partner to be mixed with."""
        manifest = self.content.manifest
        if manifest is None:
            return []
        first: dict[str, int] = {}
        for number in self.content.train_clips():
            first.setdefault(manifest.clips[number].label, number)
        numbers = list(first.values())
        chosen = numbers[:: max(len(numbers) // _N_DEMONSTRATED, 1)][:_N_DEMONSTRATED]
        return [(n, numbers[(numbers.index(n) + 1) % len(numbers)]) for n in chosen]

    def _make_frontend(self) -> BandLevels:
        config, most = for_looking(self.content.config), self.augment.max_semitones
        return build_frontend(config, torch.device("cpu"), max_semitones=most)

    def _with_statistics(self) -> BandLevels:
        statistics = read_model(self.content.run_folder / FILE_NAME).statistics
        frontend = self._make_frontend()
        frontend.set_statistics(statistics["mean_db"][:, 0], statistics["std_db"][:, 0])
        return frontend

    def _read(self, clip: Clip) -> NDArray[np.float32] | None:
        """Read at most ten seconds of a clip [time]; None if it can't be decoded any more."""
        longest_s = max(_LONGEST_S, self.content.config.audio.clip_s)
        try:
            return read_waveform(clip, self.frontend.sample_rate, longest_s)
        except DecodeError:
            return None

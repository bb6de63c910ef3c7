"""What a trained model says of files, however many and however long."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from audioml.classifier import Classifier
from audioml.config import AudioConfig
from audioml.datasets.manifest import describe_examples
from audioml.decode import DecodeError, thread_pool
from audioml.errors import UserError
from audioml.progress import progress_bar
from audioml.windowing import WindowPlan, plan_windows, read_windows

_N_AHEAD: Final = 8  # parts of files that are decoded while the model works


class PredictError(UserError):
    """Files that can't be predicted; the message names them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model says of a file.

    Args:
        path: The file.
        sample_rate: The model's rate [Hz].
        length: Samples of the file at that rate.
        n_time: Samples of a window.
        begin: First sample of each window [window].
        probability: Of each window's classes [window, class]; empty if the file can't be used.
        is_silent: Whether it holds nothing but zeros.
        error: Why the file can't be used; "" if it can.
    """

    path: Path
    sample_rate: int
    n_time: int
    length: int = 0
    begin: tuple[int, ...] = ()
    probability: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    is_silent: bool = False
    error: str = ""

    @property
    def duration_s(self) -> float:
        """Length of the file [s]."""
        return self.length / self.sample_rate

    @property
    def times_s(self) -> list[tuple[float, float]]:
        """Begin and end of each window [s]; the last ends with the file."""
        ends = [min(begin + self.n_time, self.length) for begin in self.begin]
        pairs = zip(self.begin, ends, strict=True)
        return [(begin / self.sample_rate, end / self.sample_rate) for begin, end in pairs]

    @property
    def mean_probability(self) -> NDArray[np.float64]:
        """Of the classes, over all windows [class]."""
        mean: NDArray[np.float64] = self.probability.mean(axis=0)
        return mean


def check_audible(predictions: Sequence[Prediction]) -> None:
    """Refuse files none of which can be heard: what a model says of silence means nothing.

    Raises:
        PredictError: If there is nothing but zeros in them.
    """
    usable = [prediction for prediction in predictions if not prediction.error]
    if usable and all(prediction.is_silent for prediction in usable):
        names = describe_examples([str(prediction.path) for prediction in usable])
        raise PredictError(f"{names}: nothing audible, every sample is 0; give other files")


def predict(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    overlap: float = 0.5,
    batch_size: int = 32,
    n_threads: int = 0,
) -> Iterator[Prediction]:
    """Classify files, decoding the next ones while the model works, with a progress bar.

    A file of up to one and a half clips is cut and padded as the run's evaluation does, so a clip
    of the data set gets the probabilities that it got there. A longer one gets overlapping windows,
    read a few at a time.

    Args:
        classifier: The model.
        files: Sounds of any rate, channels and length.
        overlap: Share of a window that it has in common with the next one, 0 to 0.95.
        batch_size: Windows that are classified at once, of several files.
        n_threads: Decoding threads, 0 for Python's choice.

    Yields:
        A prediction a file, in their order; one with an error for a file that can't be used.
    """
    audio = classifier.config.audio
    pool = thread_pool(n_threads)
    try:
        parts = _read_parts(pool, files, audio, overlap)
        heard_parts = _show_progress(_classify(classifier, parts, batch_size), files, audio)
        for number, heard in groupby(heard_parts, _get_file):
            yield _join(files[number], audio, list(heard))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some windows of a file [window, time], or why they can't be read."""

    file: int
    plan: WindowPlan | None
    windows: NDArray[np.float32]
    error: str = ""


@dataclass(frozen=True, slots=True)
class _HeardPart:
    """What is kept of a part: what the model says of its windows [window, class]."""

    file: int
    plan: WindowPlan | None
    probability: NDArray[np.float64]
    is_silent: bool
    error: str


def _get_file(part: _HeardPart) -> int:
    return part.file


def _read_parts(
    pool: ThreadPoolExecutor, files: Sequence[Path], audio: AudioConfig, overlap: float
) -> Iterator[_Part]:
    """Read files part by part, some ahead."""
    waiting: deque[Future[_Part]] = deque()
    for number, plan in _plan_parts(files, audio, overlap):
        waiting.append(pool.submit(_read_part, number, plan, audio))
        if len(waiting) > _N_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _plan_parts(
    files: Sequence[Path], audio: AudioConfig, overlap: float
) -> Iterator[tuple[int, WindowPlan | str]]:
    """List each file's parts, or why it has none."""
    for number, file in enumerate(files):
        try:
            plan = plan_windows(file, audio, overlap)
        except DecodeError as error:
            yield number, str(error)
        else:
            yield from ((number, part) for part in plan.parts())


def _read_part(number: int, plan: WindowPlan | str, audio: AudioConfig) -> _Part:
    nothing = np.empty((0, audio.n_time), dtype=np.float32)
    if isinstance(plan, str):
        return _Part(number, None, nothing, plan)
    try:
        return _Part(number, plan, read_windows(plan, audio))
    except DecodeError as error:
        return _Part(number, plan, nothing, str(error))


def _classify(
    classifier: Classifier, parts: Iterable[_Part], batch_size: int
) -> Iterator[_HeardPart]:
    """Classify windows in full batches, whichever files they are of; parts stay in order."""
    waiting: list[_Part] = []
    for part in parts:
        waiting.append(part)
        if sum(len(each.windows) for each in waiting) >= batch_size:
            yield from _classify_all(classifier, waiting, batch_size)
            waiting = []
    yield from _classify_all(classifier, waiting, batch_size)


def _classify_all(
    classifier: Classifier, parts: Sequence[_Part], batch_size: int
) -> Iterator[_HeardPart]:
    n_windows = [len(part.windows) for part in parts]
    probability = np.empty((0, len(classifier.labels)))
    if sum(n_windows):
        windows = torch.from_numpy(np.concatenate([part.windows for part in parts]))
        batches = windows.split(batch_size)
        outputs = [classifier(batch.to(classifier.device)).cpu() for batch in batches]
        probability = torch.cat(outputs).numpy()
    end = 0
    for part in parts:
        begin, end = end, end + len(part.windows)
        own = probability[begin:end]
        yield _HeardPart(part.file, part.plan, own, not part.windows.any(), part.error)


def _show_progress(
    parts: Iterable[_HeardPart], files: Sequence[Path], audio: AudioConfig
) -> Iterator[_HeardPart]:
    """Pass parts on behind a bar that counts the files' bytes, so that long files count more."""
    n_bytes = [file.stat().st_size if file.is_file() else 0 for file in files]
    done = [0, *accumulate(n_bytes)]
    with progress_bar(task="predict", total=done[-1], unit="B") as bar:
        for part in parts:
            share = 1.0
            if part.plan is not None:
                share = min((part.plan.begin[-1] + audio.n_time) / part.plan.length, 1.0)
            bar.update(done[part.file] + share * n_bytes[part.file] - bar.n)
            yield part


def _join(path: Path, audio: AudioConfig, parts: Sequence[_HeardPart]) -> Prediction:
    """Put the parts of a file together."""
    error = next((part.error for part in parts if part.error), "")
    plans = [part.plan for part in parts if part.plan is not None]
    if error or not plans:
        return Prediction(
            path=path, sample_rate=audio.sample_rate, n_time=audio.n_time, error=error
        )
    return Prediction(
        path=path,
        sample_rate=audio.sample_rate,
        n_time=audio.n_time,
        length=plans[0].length,
        begin=tuple(begin for plan in plans for begin in plan.begin),
        probability=np.concatenate([part.probability for part in parts]),
        is_silent=all(part.is_silent for part in parts),
    )

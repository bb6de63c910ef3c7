"""``audioml predict``."""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from audioml.cli.verbs import EXIT_DEFECT, Verbs, add_json, at_least_one, completes

if TYPE_CHECKING:
    from audioml.predict import Prediction

_FORMATS: Final = ("table", "json", "csv")
_MOST_BYTES: Final = 4 << 30  # of standard input
_STDIN: Final = "audioml standard input"  # name of the file that holds it


def add_predict(verbs: Verbs) -> None:
    """Add ``audioml predict``."""
    predict = verbs.add_parser(
        "predict",
        help="classify sound files with a trained model",
        description="Classify sound files of any rate, number of channels and length. A file of "
        "up to one and a half clips is cut and padded as the run's evaluation does; a longer one "
        "gets windows that overlap, whose probabilities are averaged. Exit code 1 if some of "
        "several files could not be used.",
        epilog="examples:\n"
        "  audioml predict runs/RUN dog.wav\n"
        "  audioml predict runs/RUN FOLDER --format csv --out predictions.csv\n"
        "  audioml predict runs/RUN concert.flac --timeline --top 1\n"
        "  ffmpeg -i film.mp4 -f wav - | audioml predict runs/RUN - --json\n",
    )
    model = predict.add_argument(
        "model", type=Path, metavar="MODEL", help="a run folder, model.safetensors or a checkpoint"
    )
    sounds = predict.add_argument(
        "sounds",
        nargs="+",
        metavar="FILE|FOLDER|-",
        help="sounds, folders of them, or - for one on standard input",
    )
    predict.add_argument("--top", type=at_least_one, default=3, metavar="K", help="classes shown")
    predict.add_argument(
        "--overlap",
        type=_overlap,
        default=0.5,
        metavar="SHARE",
        help="of a window with the next one, 0 to 0.95 (default: %(default)s)",
    )
    predict.add_argument(
        "--timeline", action="store_true", help="what is said of each window, not of the file"
    )
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--format", choices=_FORMATS, default="table")
    add_json(form)
    out = predict.add_argument("--out", type=Path, help="write to a file instead")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    predict.add_argument(
        "--batch-size", type=at_least_one, default=32, metavar="N", help="windows at once"
    )
    for argument in (model, sounds, out):
        completes(argument, "file")
    predict.set_defaults(run=_predict, logs_to_stderr=True)


def _predict(arguments: argparse.Namespace) -> int:
    from audioml.classifier import Classifier
    from audioml.predict import PredictError, check_audible, predict
    from audioml.predictions import write_predictions

    classifier = Classifier.load(arguments.model, arguments.device)
    with _find_files(arguments.sounds) as files:
        found = predict(
            classifier, files, overlap=arguments.overlap, batch_size=arguments.batch_size
        )
        predictions = list(map(_name_stdin, found))
    if len(predictions) == 1 and predictions[0].error:
        raise PredictError(predictions[0].error)
    code = _report(predictions)
    check_audible(predictions)
    text = write_predictions(
        predictions,
        classifier.labels,
        style="json" if arguments.json else arguments.format,
        n_top=arguments.top,
        timeline=arguments.timeline,
        is_multi_label=classifier.is_multi_label,
    )
    _put_out(text, arguments.out)
    return code


def _report(predictions: "Sequence[Prediction]") -> int:
    """Name the files that could not be used."""
    bad = [prediction.error for prediction in predictions if prediction.error]
    for error in bad:
        print(f"error: {error}", file=sys.stderr)
    if bad:
        print(f"{len(bad)} of {len(predictions)} files could not be used", file=sys.stderr)
    return EXIT_DEFECT if bad else 0


def _put_out(text: str, out: Path | None) -> None:
    from audioml.atomic import replacing

    content = text.encode(errors="backslashreplace")  # names of files may be any bytes
    if out is None:
        print(content.decode(), end="")
        return
    with replacing(out) as file:
        file.write(content)


@contextmanager
def _find_files(sounds: Sequence[str]) -> Iterator[list[Path]]:
    """List the files that words name; standard input becomes one for as long as it is needed."""
    from audioml.datasets.files import list_sounds

    files: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="audioml-") as folder:
        for word in sounds:
            path = Path(word)
            if word == "-":
                path = Path(folder, _STDIN)
                _read_stdin(path)
            files += list_sounds(path) if path.is_dir() else [path]
        yield files


def _name_stdin(prediction: "Prediction") -> "Prediction":
    """Call standard input what the command line calls it."""
    path = prediction.path
    if path.name != _STDIN:
        return prediction
    return replace(prediction, path=Path("-"), error=prediction.error.replace(str(path), "-"))


def _read_stdin(path: Path) -> None:
    from audioml.predict import PredictError

    stream: Any = sys.stdin
    if stream is None or stream.closed or stream.isatty():
        raise PredictError("-: nothing on standard input; pipe a sound file into it")
    source: BinaryIO = stream.buffer
    with path.open("wb") as file:
        n_bytes = 0
        while block := source.read(1 << 20):
            n_bytes += file.write(block)
            if n_bytes > _MOST_BYTES:
                raise PredictError(
                    f"-: more than {_MOST_BYTES >> 30} GiB on standard input; give a file"
                )
    if not n_bytes:
        raise PredictError("-: standard input is empty; pipe a sound file into it")


def _overlap(word: str) -> float:
    try:
        share = float(word)
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 0.95:
        raise argparse.ArgumentTypeError(f"must be in 0..0.95, got {word}")
    return share

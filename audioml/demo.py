"""A local page: record or drop a sound, and see what a model hears in it, and where."""

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pandas as pd

from audioml import metrics
from audioml.classifier import Classifier
from audioml.datasets import locate
from audioml.errors import UserError
from audioml.listening import Heard, ListeningError, listen
from audioml.results import Results
from audioml.sound_plots import plot_course, plot_evidence, plot_sound, save_picture

log = logging.getLogger("audioml")

_N_EXAMPLES = 10
_KEPT_S = 600  # how long a sound can be asked about
_CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
footer { display: none !important; }
.picture img { padding-top: 2.2rem; } /* below the label and the buttons */
"""


class DemoError(UserError):
    """A page that can't be shown; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is taken of a stranger.

    Args:
        max_s: Longest sound [s].
        max_mb: Largest file [MB].
    """

    max_s: float = 60.0
    max_mb: float = 20.0

    def __post_init__(self) -> None:
        for name, value in (("--max-s", self.max_s), ("--max-mb", self.max_mb)):
            if not value > 0:
                raise DemoError(f"{name} must be above 0, got {value:g}")


def run_demo(
    model: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    opens_browser: bool = True,
    limits: Limits | None = None,
) -> None:
    """Show the page until Ctrl-C or SIGTERM, which raise KeyboardInterrupt.

    Nothing is asked of any other host, and what was uploaded is deleted in the end.

    Args:
        model: The folder of a run, or a model in a file.
        host: Address to listen at; others than the loopback's let the network in.
        port: Its port.
        opens_browser: Whether the page is opened in the browser.
        limits: How long and large sounds may be.

    Raises:
        DemoError: If gradio or captum is not installed, or host and port can't be had.
    """
    limits = limits or Limits()
    _check_address(host, port)
    with _private_folder() as folder:
        gradio = _import_gradio()
        classifier = Classifier.load(model)
        run = _find_run(model)
        page = _Page(gradio, classifier, limits, folder).build(
            describe_model(classifier, run), find_examples(classifier, run)
        )
        _warn_of_strangers(host)
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=opens_browser,
            prevent_thread_lock=True,
            share=False,
            ssr_mode=False,
            quiet=True,
            footer_links=[],
            max_file_size=round(limits.max_mb * 1e6),
            theme=_make_theme(gradio),
            css=_CSS,
        )
        log.info("demo      %s (Ctrl-C ends it)", url)
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def describe_model(classifier: Classifier, run: Path) -> str:
    """Say in a line what a model is and, if it lies in the folder of a tested run, how good."""
    config = classifier.config
    words = [
        f"{len(classifier.labels)} classes of {config.data.name}",
        f"windows of {config.audio.clip_s:g} s at {config.audio.sample_rate:,} Hz",
    ]
    if (run / "predictions.csv").is_file():
        summary = Results.read(run).summary
        figure = metrics.main_figure(is_multi_label=classifier.is_multi_label)
        words.append(
            f"{metrics.NAMES[figure]} {metrics.write_figure(figure, summary[figure])} on "
            f"{summary['n_test']} test clips ({summary['protocol']} protocol)"
        )
    return ", ".join(words) + "."


def find_examples(classifier: Classifier, run: Path) -> list[tuple[Path, str]]:
    """List test clips of a run that are files of their own and there, one a class, with labels."""
    file = run / "split.csv"
    if not file.is_file():
        return []
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    whole = table[~table["path"].duplicated(keep=False)]  # others are stretches of a file
    test = whole[whole["part"] == "test"].drop_duplicates("label").head(_N_EXAMPLES)
    root = locate(classifier.config.data)
    clips = [(root / row["path"], row["label"]) for row in test.to_dict("records")]
    return [(path, label) for path, label in clips if path.is_file()]


class _Page:
    """The page, and what it does.

    Args:
        gradio: The module.
        classifier: The model.
        limits: How long and large sounds may be.
        folder: Where pictures are put.
    """

    def __init__(self, gradio: Any, classifier: Classifier, limits: Limits, folder: Path) -> None:
        self.gr, self.classifier, self.limits, self.folder = gradio, classifier, limits, folder

    def build(self, description: str, examples: Sequence[tuple[Path, str]]) -> Any:
        """Lay out the page."""
        gr = self.gr
        title = f"audioml demo: {self.classifier.config.model.name}"
        with gr.Blocks(title=title, analytics_enabled=False) as page:
            gr.Markdown(f"# {title}\n{_plain(description)}")
            heard = gr.State(None, time_to_live=_KEPT_S)
            with gr.Row():
                with gr.Column(min_width=320):
                    sound = gr.Audio(
                        sources=["upload", "microphone"],
                        type="filepath",
                        label=f"A sound of at most {self.limits.max_s:g} s and "
                        f"{self.limits.max_mb:g} MB",
                        buttons=["download"],  # and none to share it
                        elem_id="sound",
                    )
                    if examples:
                        gr.Examples(
                            [[str(path)] for path, _ in examples],
                            sound,
                            example_labels=[label or "none of them" for _, label in examples],
                            label="Test clips of the run, which it was not trained on",
                        )
                with gr.Column(min_width=320):
                    facts = gr.Markdown(elem_id="facts")
                    top = gr.Label(
                        label="Probabilities",
                        num_top_classes=5,
                        # Of several classes at once none is the answer.
                        show_heading=not self.classifier.is_multi_label,
                        elem_id="top",
                    )
            with gr.Row():
                with gr.Column(min_width=320):
                    picture = self._image("Waveform and log-mel", "picture")
                    course = self._image("Probabilities over time", "course")
                with gr.Column(min_width=320):
                    target = gr.Dropdown(
                        label="Where the evidence lies for", visible=False, elem_id="target"
                    )
                    evidence = self._image("Evidence over the log-mel", "evidence")
                    how = gr.Markdown(elem_id="how")
            shown = [heard, facts, top, picture, course, target, evidence, how]
            sound.change(self._show, sound, shown, api_visibility="private")
            target.input(self._explain, [heard, target], [evidence, how], api_visibility="private")
        return page

    def _image(self, label: str, elem_id: str) -> Any:
        return self.gr.Image(
            label=label,
            visible=False,
            type="filepath",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=elem_id,
            elem_classes="picture",
        )

    def _show(self, file: str | None) -> list[Any]:
        """Fill the page with what is heard in a file; None empties it."""
        gr = self.gr
        hidden = gr.update(value=None, visible=False)
        if file is None:
            return [None, "", None, hidden, hidden, hidden, hidden, ""]
        try:
            heard = listen(self.classifier, Path(file), max_s=self.limits.max_s)
        except ListeningError as error:
            return [None, f"⚠️ {_plain(str(error))}", None, hidden, hidden, hidden, hidden, ""]
        likeliest = heard.top()
        evidence, how = self._explain(heard, likeliest[0][1])
        return [
            heard,
            _describe_sound(heard),
            {label: float(heard.mean_probability[number]) for label, number in likeliest},
            gr.update(value=self._draw_sound(heard), visible=True),
            gr.update(value=self._draw_course(heard), visible=len(heard.begin) > 1),
            gr.update(choices=likeliest, value=likeliest[0][1], visible=True),
            evidence,
            how,
        ]

    def _explain(self, heard: Heard | None, target: int) -> tuple[Any, str]:
        """Show where the evidence for a class lies."""
        if heard is None:  # kept too long ago
            return self.gr.update(visible=False), "Give the sound again."
        found = heard.explain(target)
        window = heard.best_window(target)
        begin_s = float(heard.begin_s[window])
        figure = plot_evidence(
            heard.level_db(window),
            heard.frequencies,
            found.heat,
            (begin_s, begin_s + self.classifier.config.audio.clip_s),
            found.attention,
        )
        n_mels, n_frames = found.cells
        where = f" of the window at {begin_s:.2f} s" if len(heard.begin) > 1 else ""
        how = f"{found.method}{where}, in {n_mels} x {n_frames} cells."
        if not found.heat.any():
            how += " Nothing in it speaks for this class."
        return self.gr.update(value=self._save(figure), visible=True), how

    def _draw_sound(self, heard: Heard) -> str:
        rate, waveform = self.classifier.sample_rate, heard.waveform.numpy()
        return self._save(plot_sound(waveform, rate, heard.level_db(), heard.frequencies))

    def _draw_course(self, heard: Heard) -> str | None:
        if len(heard.begin) == 1:
            return None
        shown = {label: heard.probability[:, number] for label, number in heard.top()}
        clip_s = self.classifier.config.audio.clip_s
        return self._save(plot_course(heard.begin_s, clip_s, shown))

    def _save(self, figure: Any) -> str:
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".png", delete=False) as file:
            pass
        return save_picture(figure, Path(file.name))


def _describe_sound(heard: Heard) -> str:
    """Say what was given, and how it was taken."""
    layout, n_windows = heard.layout, len(heard.begin)
    channels = "mono" if layout.n_channels == 1 else f"{layout.n_channels} channels"
    words = f"{heard.duration_s:.2f} s, {layout.sample_rate:,} Hz, {channels}"
    if n_windows > 1:
        words += f"; the mean of {n_windows} windows"
    if heard.is_silent:
        words += ". ⚠️ Every sample is 0: there is nothing to hear"
    return words + "."


def _plain(text: str) -> str:
    """Keep a text, such as a file's name, from being read as Markdown or HTML."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|$~&" else c for c in text)


def _find_run(model: Path) -> Path:
    """Name the folder in which a run would have put a model."""
    if model.is_dir():
        return model
    return model.parent.parent if model.parent.name == "checkpoints" else model.parent


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder for all that is uploaded and shown, deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="audioml-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield Path(folder)


def _import_gradio() -> Any:
    """Import gradio, which is to tell nobody, and to ask this machine past any proxy."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost,127.0.0.1,::1"]))
    try:
        import captum.attr  # noqa: F401 - so that it is missed here, and not on the page
        import gradio
    except ImportError as error:
        raise DemoError(
            f"the demo needs gradio and captum ({error}); python -m pip install 'audioml[demo]'"
        ) from error
    return gradio


def _make_theme(gradio: Any) -> Any:
    """Make a theme whose fonts every machine has, so that none is fetched."""
    return gradio.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def _check_address(host: str, port: int) -> None:
    """Refuse an address that can't be had: gradio would try others, and say it at length."""
    if not 1 <= port <= 65_535:
        raise DemoError(f"--port must be in 1..65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise DemoError(
            f"{host}:{port} can't be listened at ({error.strerror}); choose another --port or "
            "--host"
        ) from error


def _warn_of_strangers(host: str) -> None:
    try:
        is_private = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_private = False
    if not is_private:
        log.warning("network   %s can be reached by others: whoever can may use the model", host)

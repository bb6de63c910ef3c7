"""The built-in data set: ten classes of generated sounds with the structure of ESC-10.

Classes differ by how their sound moves in time and frequency, not by where its energy lies: every
source draws its own pitch or band, so average spectra overlap. The sounds of a source share pitch,
tempo, timbre, room and background, and differ a little in all of them.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from scipy.signal.windows import tukey

from audioml.datasets.manifest import DataError
from audioml.progress import track

SAMPLE_RATE: Final = 22_050
N_SAMPLES: Final = 5 * SAMPLE_RATE
N_FOLDS: Final = 5
# Clips of each source in a fold of a class; the class takes the rows in turn. As in ESC-10, 40 % of
# the clips share their source with another.
SOURCE_SIZES: Final = (
    (4, 1, 1, 1, 1),
    (3, 1, 1, 1, 1, 1),
    (2, 1, 1, 1, 1, 1, 1),
    (2, 2, 1, 1, 1, 1),
    (3, 1, 1, 1, 1, 1),
)
_CLIP_S: Final = N_SAMPLES / SAMPLE_RATE
_VERSION: Final = 1  # raised whenever a sound changes
_MARKER: Final = "synthetic.json"
_TAKES: Final = "ABCD"

Waveform = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """What a class is given to make a clip from.

    Args:
        shared: Draws what the clips of a source have in common.
        rng: Draws what is the clip's own.
        pitch_hz: Fundamental of tones, centre of noise bands [Hz].
        tempo: Factor on the class's typical rate, about 0.8 to 1.25.
        tilt: Slope of the harmonics, amplitude ~ k^-tilt.
        width: Width of noise bands [octaves].
    """

    shared: np.random.Generator
    rng: np.random.Generator
    pitch_hz: float
    tempo: float
    tilt: float
    width: float


def _seconds(duration_s: float) -> Waveform:
    """Return the time axis [time] of a stretch of sound [s]."""
    return np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE


def _coloured_noise(rng: np.random.Generator, slope: float) -> Waveform:
    """Draw noise [time], power ~ f^-slope (0 white, 1 pink, 2 brown) above 20 Hz, RMS 1."""
    freq = np.fft.rfftfreq(N_SAMPLES, 1 / SAMPLE_RATE)
    return _shaped_noise(rng, np.maximum(freq, 20.0) ** (-slope / 2), N_SAMPLES)


def _band_noise(voice: Voice, brightness: float, n_samples: int = N_SAMPLES) -> Waveform:
    """Draw noise [time] in a band around ``brightness`` times the voice's pitch, RMS 1."""
    freq = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(freq, 20.0) / (brightness * voice.pitch_hz))
    return _shaped_noise(voice.rng, np.exp2(-((octaves / voice.width) ** 2)), n_samples)


def _shaped_noise(rng: np.random.Generator, gain: Waveform, n_samples: int) -> Waveform:
    """Filter white noise [time] by a gain for every bin [freq], RMS 1."""
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n_samples)) * gain, n_samples)
    return _normalise(noise)


def _normalise(sound: Waveform) -> Waveform:
    """Scale a sound [time] to RMS 1."""
    normalised: Waveform = sound / np.sqrt(np.mean(sound**2))
    return normalised


def _harmonics(frequency_hz: Waveform, gains: list[float]) -> Waveform:
    """Sum harmonics of a gliding fundamental [time]; those near Nyquist are left out."""
    phase = 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE
    audible = [
        (k, gain)
        for k, gain in enumerate(gains, start=1)
        if k * frequency_hz.max() < 0.45 * SAMPLE_RATE
    ]
    return sum((gain * np.sin(k * phase) for k, gain in audible), np.zeros_like(phase))


def _tilted(voice: Voice, n_harmonics: int = 8) -> list[float]:
    """Return the gains of a voice's harmonics."""
    return [k**-voice.tilt for k in range(1, n_harmonics + 1)]


def _decay(n_samples: int, decay_s: float) -> Waveform:
    """Return an envelope [time] that rises in 3 ms and falls by 1/e every ``decay_s``."""
    time = np.arange(n_samples) / SAMPLE_RATE
    return np.minimum(time / 0.003, 1.0) * np.exp(-time / decay_s)


def _place(events: list[tuple[float, Waveform]]) -> Waveform:
    """Lay sounds [time] at their onsets [s] into a clip; what passes its end is cut."""
    clip = np.zeros(N_SAMPLES)
    for onset_s, sound in events:
        start = round(onset_s * SAMPLE_RATE)
        room = clip[start : start + len(sound)]
        room += sound[: len(room)]
    return clip


def _onsets(voice: Voice, rate_hz: float, jitter: float) -> list[float]:
    """Draw onsets [s] through a clip, each interval off by up to ``jitter`` (0..1) of itself."""
    mean_s = 1 / (rate_hz * voice.tempo)
    n_onsets = int(2 * _CLIP_S / mean_s) + 2
    gaps = mean_s * voice.rng.uniform(1 - jitter, 1 + jitter, n_onsets)
    onsets = np.cumsum(gaps) - gaps[0] * voice.rng.uniform()
    return [float(onset) for onset in onsets if onset < _CLIP_S]


def _sweeps(voice: Voice, direction: int) -> Waveform:
    """Repeat a glide over about an octave, upwards (+1) or downwards (-1)."""
    events = []
    span = voice.shared.uniform(0.5, 1.2)
    for onset in _onsets(voice, 1.1, 0.15):
        time = _seconds(voice.rng.uniform(0.45, 0.65) / voice.tempo)
        rise = time / time[-1]
        glide = voice.pitch_hz * np.exp2(direction * span * (rise - 0.5))
        events.append((onset, tukey(len(time), 0.8) * _harmonics(glide, _tilted(voice))))
    return _place(events)


def chirp_up(voice: Voice) -> Waveform:
    """Glide upwards, again and again, like a bird's call."""
    return _sweeps(voice, +1)


def chirp_down(voice: Voice) -> Waveform:
    """Glide downwards, again and again."""
    return _sweeps(voice, -1)


def siren(voice: Voice) -> Waveform:
    """Hold a tone that swings up and down about once a second."""
    swing = np.sin(2 * np.pi * (0.9 * voice.tempo * _seconds(_CLIP_S) + voice.rng.uniform()))
    span = voice.shared.uniform(0.2, 0.5)
    return _harmonics(voice.pitch_hz * np.exp2(span * swing), _tilted(voice))


def tremolo(voice: Voice) -> Waveform:
    """Hold a tone of steady pitch whose loudness beats some seven times a second."""
    time = _seconds(_CLIP_S)
    beat = np.cos(2 * np.pi * (7.0 * voice.tempo * time + voice.rng.uniform()))
    envelope = 1 + voice.shared.uniform(0.6, 0.95) * beat
    return envelope * _harmonics(np.full_like(time, 0.7 * voice.pitch_hz), _tilted(voice))


def bell(voice: Voice) -> Waveform:
    """Strike a bell: inharmonic partials, the high ones dying first."""
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.66, 3.01, 4.1]) * 1.6 * voice.pitch_hz
    ratios *= voice.shared.uniform(0.98, 1.02, len(ratios))
    decay_s = voice.shared.uniform(0.3, 0.6)
    events = []
    for onset in _onsets(voice, 0.8, 0.3):
        time = _seconds(2.5)
        partials = [
            np.sin(2 * np.pi * freq * time) * _decay(len(time), decay_s * (1.5 * k) ** -0.5) / k
            for k, freq in enumerate(ratios, start=1)
            if freq < 0.45 * SAMPLE_RATE
        ]
        events.append((onset, voice.rng.uniform(0.6, 1.0) * np.sum(partials, axis=0)))
    return _place(events)


def bark(voice: Voice) -> Waveform:
    """Bark in groups: short harmonic bursts, pitch falling, coloured by formants."""
    formants = voice.pitch_hz * voice.shared.uniform([1.2, 2.5], [2.2, 4.0])
    low = voice.pitch_hz / 2
    gains = [
        float(np.exp(-(((k * low - formants) / (0.8 * low)) ** 2)).sum()) + 0.1
        for k in range(1, 13)
    ]
    events = []
    for onset in _onsets(voice, 0.8, 0.3):
        for n in range(voice.rng.integers(2, 4)):
            time = _seconds(voice.rng.uniform(0.12, 0.18))
            glide = low * (1.15 - 0.4 * time / time[-1])
            burst = tukey(len(time), 0.5) * _harmonics(glide, gains)
            events.append((onset + n * voice.rng.uniform(0.27, 0.33) / voice.tempo, burst))
    return _place(events)


def _click(voice: Voice, brightness: float, decay_s: float) -> Waveform:
    """Make one click: a burst of band noise that dies away."""
    n_samples = round(6 * decay_s * SAMPLE_RATE)
    return _decay(n_samples, decay_s) * _band_noise(voice, brightness, n_samples)


def ticks(voice: Voice) -> Waveform:
    """Tick evenly, some three times a second, like a clock."""
    return _place([(onset, _click(voice, 2.0, 0.015)) for onset in _onsets(voice, 3.2, 0.04)])


def rattle(voice: Voice) -> Waveform:
    """Rattle in bursts: some ten fast clicks, then a pause."""
    events = []
    for onset in _onsets(voice, 0.9, 0.3):
        gaps = voice.rng.uniform(0.05, 0.08, voice.rng.integers(7, 12)) / voice.tempo
        events += [(onset + at, _click(voice, 1.4, 0.012)) for at in np.cumsum(gaps)]
    return _place(events)


def crackle(voice: Voice) -> Waveform:
    """Crackle like a fire: clicks of any strength at random moments."""
    n_clicks = voice.rng.poisson(80 * voice.tempo)
    onsets = voice.rng.uniform(0.0, _CLIP_S, n_clicks)
    gains = np.exp(voice.rng.normal(0.0, 0.5, n_clicks))
    return _place(
        [(at, gain * _click(voice, 4.0, 0.008)) for at, gain in zip(onsets, gains, strict=True)]
    )


def gusts(voice: Voice) -> Waveform:
    """Blow: band noise that swells and falls smoothly."""
    swell = np.sin(2 * np.pi * (0.7 * voice.tempo * _seconds(_CLIP_S) + voice.rng.uniform()))
    return 10 ** (voice.shared.uniform(0.4, 0.8) * swell) * _band_noise(voice, 0.7)


CLASSES: Final[dict[str, Callable[[Voice], Waveform]]] = {
    "chirp_up": chirp_up,
    "chirp_down": chirp_down,
    "siren": siren,
    "tremolo": tremolo,
    "bell": bell,
    "bark": bark,
    "ticks": ticks,
    "rattle": rattle,
    "crackle": crackle,
    "gusts": gusts,
}


def _add_room(rng: np.random.Generator, sound: Waveform) -> Waveform:
    """Add a reverberant tail [time]: exponentially decaying noise as impulse response."""
    decay_s, wet = rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.6)
    n_tail = round(4 * decay_s * SAMPLE_RATE)
    tail = rng.standard_normal(n_tail) * _decay(n_tail, decay_s)
    echo = fftconvolve(sound, tail / np.sqrt(np.sum(tail**2)))
    heard: Waveform = sound + wet * echo[: len(sound)]
    return heard


def synthesize_clip(label: str, source: int, take: int, *, seed: int) -> NDArray[np.float32]:
    """Make one clip; the same arguments give the same samples, in any order and thread.

    Args:
        label: A key of ``CLASSES``.
        source: Number of the source, from 0; it fixes pitch, tempo, timbre, room, background.
        take: Which clip of the source, from 0; it varies all of these a little.
        seed: The data set's seed.

    Returns:
        Samples [time] of 5 s at 22,050 Hz, float32, peak 0.1 to 0.9.
    """
    key = [seed, list(CLASSES).index(label), source]
    # Take 0 must not share its generator with the source: numpy pads keys with zeros.
    shared, rng = np.random.default_rng(key), np.random.default_rng([*key, take + 1])
    voice = Voice(
        shared=shared,
        rng=rng,
        pitch_hz=450 * 2 ** (shared.uniform(0.0, 1.5) + rng.normal(0.0, 0.08)),
        tempo=2 ** (shared.uniform(-0.3, 0.3) + rng.normal(0.0, 0.05)),
        tilt=shared.uniform(0.6, 1.8),
        width=shared.uniform(0.6, 1.5),
    )
    fade_in = np.clip((_seconds(_CLIP_S) - rng.uniform(0.0, 1.0)) / 0.02, 0.0, 1.0)
    sound = _add_room(shared, fade_in * CLASSES[label](voice))
    background = _coloured_noise(rng, shared.uniform(0.0, 2.0) + rng.normal(0.0, 0.1))
    snr_db = shared.uniform(2.0, 20.0) + rng.normal(0.0, 1.5)
    clip = _normalise(sound) + 10 ** (-snr_db / 20) * background
    peak = 10 ** (rng.uniform(-20.0, -1.0) / 20)
    return np.asarray(clip * (peak / np.abs(clip).max()), dtype=np.float32)


def list_clips() -> pd.DataFrame:
    """List the clips in ESC-50's columns.

    Returns:
        One row a clip: filename, fold (1..5), target, category, esc10 (always true), src_file (a
        number of its own for every source) and take (A, B, ...).
    """
    rows = []
    for target, category in enumerate(CLASSES):
        src_file = 1_000 * (target + 1)
        for fold in range(1, N_FOLDS + 1):
            for size in SOURCE_SIZES[(target + fold) % len(SOURCE_SIZES)]:
                for take in _TAKES[:size]:
                    filename = f"{fold}-{src_file}-{take}-{target}.wav"
                    rows.append((filename, fold, target, category, True, src_file, take))
                src_file += 1
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    return pd.DataFrame(rows, columns=columns)


def prepare_synthetic(root: Path, *, seed: int) -> None:
    """Make the data set unless it is there: ``audio/*.wav`` and ``meta/esc50.csv``, as in ESC-50.

    It is made beside ``root`` and renamed at the end, so that ``root`` is whole or absent.

    Args:
        root: The folder to make.
        seed: What all sounds are drawn from, from 0.

    Raises:
        DataError: If ``root`` holds anything but this data set of this seed.
    """
    marker = {"version": _VERSION, "seed": seed, "n_clips": len(list_clips())}
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
            made = Path(folder) / root.name
            _write(made, marker)
            try:
                made.rename(root)
            except OSError:  # another run may have been quicker; what it made is checked below
                if not root.exists():
                    raise
    found = _read_marker(root)
    if found != marker:
        raise DataError(
            f"{root}: expected the built-in data set {marker}, found {found or 'something else'}; "
            "name another folder as data.root, or remove this one to make the data set anew"
        )


def _read_marker(root: Path) -> object:
    """Return what ``synthetic.json`` says, None without a readable one."""
    try:
        return json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(root: Path, marker: dict[str, int]) -> None:
    """Write all clips, the metadata and the marker into a new folder."""
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    clips = list_clips()
    clips.to_csv(root / "meta" / "esc50.csv", index=False)

    def write_clip(filename: str, category: str, src_file: int, take: str) -> None:
        clip = synthesize_clip(category, src_file, _TAKES.index(take), seed=marker["seed"])
        samples = np.rint(clip * 32_767).astype(np.int16)
        soundfile.write(root / "audio" / filename, samples, SAMPLE_RATE, subtype="PCM_16")

    with ThreadPoolExecutor() as pool:
        columns = [clips[name] for name in ("filename", "category", "src_file", "take")]
        done = pool.map(write_clip, *columns)
        list(track(done, task="make the built-in data set", total=len(clips), unit="clip"))
    (root / _MARKER).write_text(json.dumps(marker), encoding="utf-8")

"""Copies of clips as they turn up in collections: re-encoded, resampled, shifted, louder, noisy."""

import io
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

RATE: Final = 22_050
Sound = NDArray[np.float32]
Change = Callable[[Sound, np.random.Generator], Sound]

_MP3_LEVEL: Final = 0.6  # of libsndfile: 64 kbit/s at 22,050 Hz, mono
_MIN_SHIFT_S, _MAX_SHIFT_S = 0.1, 1.0
_MIN_GAIN_DB, _MAX_GAIN_DB = -20.0, 6.0
_SNR_DB: Final = 20.0


def plant(change: Change, clip: NDArray[np.int16], seed: tuple[int, int]) -> NDArray[np.int16]:
    """Change a clip [time] and round it to int16, clipped at full scale."""
    changed = change((clip / 32_768).astype(np.float32), np.random.default_rng(seed))
    return np.rint(changed * 32_768).clip(-32_768, 32_767).astype(np.int16)


def _mp3(sound: Sound, _: np.random.Generator) -> Sound:
    return _encode(
        sound, "MP3", "MPEG_LAYER_III", compression_level=_MP3_LEVEL, bitrate_mode="CONSTANT"
    )


def _ogg(sound: Sound, _: np.random.Generator) -> Sound:
    return _encode(sound, "OGG", "VORBIS")


def _encode(sound: Sound, file_format: str, subtype: str, **options: object) -> Sound:
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format=file_format, subtype=subtype, **options)
    file.seek(0)
    decoded: Sound = soundfile.read(file, dtype="float32")[0]
    return decoded


def _resampled(rate: int) -> Change:
    def change(sound: Sound, _: np.random.Generator) -> Sound:
        there_and_back: Sound = resample_poly(resample_poly(sound, rate, RATE), RATE, rate)
        return there_and_back

    return change


def _shift(sound: Sound, g: np.random.Generator) -> Sound:
    """Shift so that the louder end stays; silence comes in at the other."""
    n = round(g.uniform(_MIN_SHIFT_S, _MAX_SHIFT_S) * RATE)
    silence = np.zeros(n, np.float32)
    if np.square(sound[:-n]).sum() > np.square(sound[n:]).sum():
        return np.concatenate((silence, sound[:-n]))
    return np.concatenate((sound[n:], silence))


def _gain(sound: Sound, g: np.random.Generator) -> Sound:
    gain = np.float32(10 ** (g.uniform(_MIN_GAIN_DB, _MAX_GAIN_DB) / 20))
    return (gain * sound).clip(-1, 1)


def _noise(sound: Sound, g: np.random.Generator) -> Sound:
    level = np.sqrt(np.square(sound).mean()) * 10 ** (-_SNR_DB / 20)
    return (sound + level * g.standard_normal(len(sound))).astype(np.float32)


def _louder_half(sound: Sound, _: np.random.Generator) -> Sound:
    half = len(sound) // 2
    return max(sound[:half], sound[half:], key=lambda part: float(np.square(part).sum()))


def _all_of(*changes: Change) -> Change:
    def change(sound: Sound, g: np.random.Generator) -> Sound:
        for each in changes:
            sound = each(sound, g)
        return sound

    return change


KINDS: Final[Mapping[str, Change]] = {
    "MP3, 64 kbit/s": _mp3,
    "Ogg Vorbis": _ogg,
    "16 kHz and back": _resampled(16_000),
    "11.025 kHz and back": _resampled(11_025),
    "shifted by 0.1 to 1 s": _shift,
    "gain -20 to +6 dB, clipped": _gain,
    "white noise at 20 dB": _noise,
    "the louder half alone": _louder_half,
    "MP3 + shift + noise": _all_of(_mp3, _shift, _noise),
    "11 kHz + shift + noise + gain + Ogg": _all_of(_resampled(11_025), _shift, _noise, _gain, _ogg),
}


def other_sounds(clip: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    """Make sounds of the same kind that are none of its near-duplicates.

    They are the clip backwards, faster and slower by an eighth and a fifth: time scales that differ
    by more than a twentieth.
    """
    sound = clip.astype(np.float32)
    changed = [
        sound[::-1],
        resample_poly(sound, 8, 9),
        resample_poly(sound[::-1], 8, 9),
        resample_poly(sound, 6, 5)[: len(sound)],
    ]
    return [np.rint(each).clip(-32_768, 32_767).astype(np.int16) for each in changed]

"""Folders of short sounds, under names of every kind."""

import numpy as np
import soundfile
from tiny import RATE, SETTINGS

SMALL = SETTINGS[1:7]  # rate, length and front end


def tone(frequency=400.0, seconds=0.5, amplitude=0.4):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def write(file, waveform=None, subtype="PCM_16"):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sink:  # by a handle, for names that are no text
        sound = tone() if waveform is None else waveform
        soundfile.write(sink, sound, RATE, subtype=subtype, format=file.suffix[1:])


HOSTILE_LABEL = "<b onclick=alert(1)>&lt; $\\frac$"
HOSTILE = (
    "<img src=x onerror=alert(1)>.wav",
    "\"quoted\" 'name'.wav",
    "new\nline.wav",
    "<script>alert(1)<!-- &amp; $x^2$ .wav",
    "=1+1,semi;colon.wav",
    "</script><i>.wav",  # in a folder named <
    "\udcff\udcfe.wav",
)


def make_hostile(root):
    """Files and classes whose names try everything."""
    for number, name in enumerate(HOSTILE):
        write(root / ("a" if number % 2 else HOSTILE_LABEL) / name, tone(300 + number))
    (root / "a" / "<script>bad.wav").write_bytes(b"")
    return root

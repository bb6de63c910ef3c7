"""A small archive in the layout of ESC-50's."""

import io
import zipfile
from pathlib import Path

import numpy as np
import soundfile

TOP = "ESC-50-master/"
METADATA = """filename,fold,target,category,esc10,src_file,take
1-100-A-0.wav,1,0,dog,True,100,A
2-200-A-1.wav,2,1,rooster,True,200,A
"""
Member = tuple[str | zipfile.ZipInfo, bytes]


def make_wav() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)
    soundfile.write(buffer, noise, 8_000, format="WAV")
    return buffer.getvalue()


MEMBERS: tuple[Member, ...] = (
    (TOP, b""),
    (f"{TOP}README.md", b"ESC-50"),
    (f"{TOP}meta/esc50.csv", METADATA.encode()),
    (f"{TOP}audio/1-100-A-0.wav", make_wav()),
    (f"{TOP}audio/2-200-A-1.wav", make_wav()),
)


def make_zip(members: tuple[Member, ...] = MEMBERS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members:
            pack.writestr(name, content)
    return buffer.getvalue()


def pack_to(file: Path, *members: Member) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(make_zip(members))
    return file


def names_in(folder: Path) -> list[str]:
    """List what is in a folder, but for the lock files."""
    paths = folder.iterdir() if folder.exists() else ()
    return sorted(path.name for path in paths if path.suffix != ".lock")

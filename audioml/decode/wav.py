"""The header of a plain WAV file, read with distrust."""

import os
import struct
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from audioml.decode.layout import DecodeError, PcmLayout, SampleFormat, check_layout

MAX_CHUNKS: Final = 1000
# Programs that write to a pipe can't know the size and put the largest number there, or near it.
UNKNOWN_SIZE: Final = 0xFFFFF000

_EXTENSIBLE: Final = 0xFFFE
_EXTENSIBLE_BYTES: Final = 40
# What follows the format code in an EXTENSIBLE header's sub-format (KSDATAFORMAT_SUBTYPE_...).
_SUBTYPE_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
_SAMPLE_FORMATS: Final[dict[tuple[int, int], SampleFormat]] = {
    (1, 8): "u8",
    (1, 16): "s16",
    (1, 24): "s24",
    (1, 32): "s32",
    (3, 32): "f32",
    (3, 64): "f64",
}


@dataclass(frozen=True, slots=True)
class WavSamples:
    """Where the samples of a WAV file are.

    Args:
        layout: How they are laid out.
        offset: Their first byte in the file.
        n_frames: How many frames there are; never more than the file holds.
    """

    layout: PcmLayout
    offset: int
    n_frames: int


def find_samples(file: BufferedIOBase, path: Path) -> WavSamples | None:
    """Walk the chunks of a WAV file up to its samples.

    Reads at most ``MAX_CHUNKS`` chunk headers and 40 bytes of format, whatever the sizes say.

    Args:
        file: The open file; its position moves.
        path: Its name, for the errors.

    Returns:
        The samples; None if this is not a WAV file of plain integers or floats, or says that it
        holds none: libsndfile knows the rest.

    Raises:
        DecodeError: If the header contradicts itself or the size of the file.
    """
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return None
    layout = None
    for _ in range(MAX_CHUNKS):
        name, size = _read_chunk_header(file, path)
        begin = file.tell()
        n_left = n_bytes - begin
        if name == b"data" and size >= UNKNOWN_SIZE:
            size = n_left
        if size > n_left:
            raise DecodeError(f"{path}: cut short, its end is missing; replace the file")
        if name == b"data":
            if layout is None:
                raise DecodeError(f"{path}: its samples come before their format; replace the file")
            return WavSamples(layout, begin, size // layout.frame_bytes) if size else None
        if name == b"fmt " and layout is None:
            layout = _parse_format(file.read(min(size, _EXTENSIBLE_BYTES)), path)
            if layout is None:
                return None
        file.seek(begin + size + size % 2)
    raise DecodeError(f"{path}: no samples in its first {MAX_CHUNKS} chunks; replace the file")


def _read_chunk_header(file: BufferedIOBase, path: Path) -> tuple[bytes, int]:
    header = file.read(8)
    if len(header) < 8:
        raise DecodeError(f"{path}: cut short, it ends before its samples; replace the file")
    return header[:4], int.from_bytes(header[4:], "little")


def _parse_format(fmt: bytes, path: Path) -> PcmLayout | None:
    """Turn the content of a ``fmt`` chunk into a layout; None if libsndfile should see to it."""
    if len(fmt) < 16:
        raise DecodeError(f"{path}: its format takes {len(fmt)} bytes, expected 16; replace it")
    code, n_channels, sample_rate, _, frame_bytes, n_bits = struct.unpack("<HHIIHH", fmt[:16])
    if code == _EXTENSIBLE:
        n_valid_bits = int.from_bytes(fmt[18:20], "little")
        code, tail = int.from_bytes(fmt[24:26], "little"), fmt[26:]
        if tail != _SUBTYPE_TAIL or n_valid_bits > n_bits:
            return None
    if (code, n_bits) not in _SAMPLE_FORMATS:
        return None
    sample_format = _SAMPLE_FORMATS[code, n_bits]
    layout = check_layout(path, PcmLayout(sample_format, n_channels, sample_rate))
    if frame_bytes != layout.frame_bytes:
        raise DecodeError(
            f"{path}: its header says {frame_bytes} bytes a frame, but {n_channels} channels of "
            f"{n_bits} bits take {layout.frame_bytes}; replace the file"
        )
    return layout

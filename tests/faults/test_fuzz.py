"""Any bytes at all: what reads them gives data or its own error, in one line, and nothing else.

The examples are the same in every run. To look further: FUZZ_EXAMPLES=100000 python -m pytest
tests/faults/test_fuzz.py
"""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from riff import PCM_GUID, RATE, chunk, extensible, fmt, wav
from sound_files import DATA, encode

from audioml.audit import audit_files
from audioml.config import ConfigError, load_config, to_yaml
from audioml.datasets.esc50 import find_unlisted_files, read_esc50
from audioml.datasets.manifest import DataError
from audioml.decode import DecodeError, decode_clip, read_payload, resampled_length, scan_length
from audioml.split_files import AuditError

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
bounded = settings(
    max_examples=int(EXAMPLES or 100),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
)
CSV = b"""filename,fold,target,category,esc10,src_file,take
1-100-A-0.wav,1,0,dog,True,100,A
1-100-B-0.wav,1,0,"dog",True,100,B
2-200-A-1.wav,2,1,rooster,False,200,A
"""
SOUNDS = {
    "wav": wav(chunk(b"LIST", b"odd"), fmt(), DATA),
    "wavex": wav(extensible(16, PCM_GUID), DATA),
    "alaw": encode("WAV", "ALAW"),
    "adpcm": encode("WAV", "MS_ADPCM"),
    "float": encode("WAV", "FLOAT"),
    "rifx": encode("WAV", "FLOAT", endian="BIG"),
    "rf64": encode("RF64"),
    "aiff": encode("AIFF"),
    "flac": encode("FLAC"),
    "ogg": encode("OGG"),
    "opus": encode("OGG", "OPUS"),
    "mp3": encode("MP3"),
}


@st.composite
def damaged(draw, whole, words=()):
    """Some places of a file are overwritten, cut out or filled with something else."""
    content = bytearray(whole)
    new = st.binary(max_size=8) | st.sampled_from([b"", b"\xff" * 4, b"\xff\xff\xff\x7f", *words])
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, min(len(content), 64)) | st.integers(0, len(content)))
        n_out = draw(st.sampled_from([0, 1, 2, 4, 8, 500, len(content)]))
        content[place : place + n_out] = draw(new)
    return bytes(content)


def check_refusal(read, kind, beginning):
    """Run a reader, which may fail with one kind of error; says whether it did not."""
    message = None
    try:
        read()
    except kind as error:
        message = str(error)
    assert message is None or (message.startswith(beginning) and "\n" not in message)
    return message is None


def check_decoder(file):
    """Decode a file: samples as many as its header was read to say, or a DecodeError."""
    if not check_refusal(lambda: decode_clip(file, RATE), DecodeError, f"{file}: "):
        return
    payload, clip = read_payload(file), decode_clip(file, RATE)
    assert scan_length(file) == (payload.layout, payload.n_frames)
    assert len(clip) == resampled_length(payload.n_frames, payload.layout.sample_rate, RATE) > 0
    assert clip.dtype == np.int16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "meta").mkdir()
    (folder / "audio").mkdir()
    return folder


@pytest.mark.parametrize("name", SOUNDS)
@bounded
@given(data=st.data())
def test_damaged_sounds_decode_or_are_refused(folder, name, data):
    words = [b"data", b"fmt ", b"RIFF", b"OggS", b"fLaC", b"COMM", b"ID3\x03\0\0\x7f\x7f\x7f\x7f"]
    file = folder / name
    file.write_bytes(data.draw(damaged(SOUNDS[name], words)))
    check_decoder(file)


@bounded
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(SOUNDS["wav"][:36].__add__))
def test_any_bytes_decode_or_are_refused(folder, content):
    file = folder / "any.wav"
    file.write_bytes(content)
    check_decoder(file)


CELLS = [b",", b"\n", b'"', b"\r", b"\0", b";", b"../", b"NaN", b"\xef\xbb\xbf", b"\xff", b"fold"]


@bounded
@given(content=st.binary(max_size=200) | damaged(CSV, CELLS))
@example(content=b"")
@example(content=CSV)
@example(content=b'"\n"')  # found by a longer search: a column whose name is a line break
def test_any_metadata_is_read_or_refused(folder, content):
    (folder / "meta" / "esc50.csv").write_bytes(content)
    for read in (
        lambda: read_esc50(folder, check_files=False),
        lambda: read_esc50(folder, esc10=True),
        lambda: find_unlisted_files(folder),
    ):
        check_refusal(read, DataError, f"{folder / 'meta' / 'esc50.csv'}")


@bounded
@given(content=st.binary(max_size=200) | damaged(CSV, CELLS))
def test_any_split_file_is_audited_or_refused(folder, content):
    train, val = folder / "train.csv", folder / "val.csv"
    train.write_bytes(content)
    val.write_bytes(CSV)
    check_refusal(lambda: audit_files(train, val).text(), AuditError, f"{train}")


WORDS = [b"{", b"[", b"]", b"&a ", b"*a", b"!!python/name:os.system", b"${", b"}", b"? ", b"- "]


@bounded
@given(content=st.binary(max_size=100) | damaged(to_yaml(load_config()).encode(), WORDS))
def test_any_configuration_is_read_or_refused(folder, content):
    file = folder / "config.yaml"
    file.write_bytes(content)
    check_refusal(lambda: load_config([file]), ConfigError, "")

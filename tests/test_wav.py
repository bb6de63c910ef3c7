import io
from pathlib import Path

import numpy as np
import pytest
from riff import FLOAT_GUID, PCM_GUID, RATE, chunk, extensible, fmt, wav

from audioml.decode import DecodeError, PcmLayout, read_payload, scan_length
from audioml.decode.wav import MAX_CHUNKS, find_samples

SAMPLES = np.arange(-50, 50, dtype="<i2").tobytes()


def find(content):
    return find_samples(io.BufferedReader(io.BytesIO(content)), Path("a.wav"))


DATA = chunk(b"data", SAMPLES)


@pytest.mark.parametrize(
    ("header", "layout"),
    [
        (fmt(bits=8), PcmLayout("u8", 1, RATE)),
        (fmt(channels=2), PcmLayout("s16", 2, RATE)),
        (fmt(bits=24, channels=5), PcmLayout("s24", 5, RATE)),
        (fmt(bits=32), PcmLayout("s32", 1, RATE)),
        (fmt(3, bits=32), PcmLayout("f32", 1, RATE)),
        (fmt(3, bits=64), PcmLayout("f64", 1, RATE)),
        (fmt(extra=b"\0\0"), PcmLayout("s16", 1, RATE)),
        (extensible(24, PCM_GUID), PcmLayout("s24", 1, RATE)),
        (extensible(32, PCM_GUID, 24), PcmLayout("s32", 1, RATE)),
        (extensible(32, FLOAT_GUID, channels=8), PcmLayout("f32", 8, RATE)),
        (fmt(channels=255, rate=1_000_000), PcmLayout("s16", 255, 1_000_000)),
        (fmt(rate=100), PcmLayout("s16", 1, 100)),
    ],
)
def test_formats_are_told_apart(header, layout):
    found = find(wav(header, DATA))
    assert found.layout == layout
    assert found.n_frames == len(SAMPLES) // layout.frame_bytes
    assert found.offset == 12 + len(header) + 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        b"fLaC" + bytes(60),
        b"RIFX" + wav(fmt(), DATA)[4:],
        b"RF64" + wav(fmt(), DATA)[4:],
        wav(fmt(6, bits=8), DATA),  # A-law
        wav(fmt(bits=12, frame_bytes=2), DATA),
        wav(extensible(16, PCM_GUID[::-1]), DATA),
        wav(extensible(16, PCM_GUID, 24), DATA),
        wav(fmt(0xFFFE), DATA),  # EXTENSIBLE without the extension
        wav(fmt(), chunk(b"data")),
    ],
)
def test_what_is_not_plain_is_left_to_libsndfile(content):
    assert find(content) is None


def test_other_chunks_may_come_before_between_and_after():
    others = chunk(b"LIST", b"odd"), chunk(b"JUNK", bytes(28)), chunk(b"fact", b"abcd")
    found = find(wav(*others, fmt(), chunk(b"bext", b"x"), DATA, chunk(b"LIST", b"odd")))
    assert found.n_frames == 100
    before = len(wav(*others, fmt(), chunk(b"bext", b"x")))
    assert found.offset == before + 8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (wav(DATA, fmt()), "its samples come before their format"),
        (wav(fmt()), "it ends before its samples"),
        (wav(), "it ends before its samples"),
        (wav(chunk(b"fmt ", bytes(14)), DATA), "its format takes 14 bytes, expected 16"),
        (wav(fmt(channels=0), DATA), "0 channels, expected 1 to 255"),
        (wav(fmt(channels=256), DATA), "256 channels, expected 1 to 255"),
        (wav(fmt(channels=2, frame_bytes=2), DATA), "2 bytes a frame, but 2 channels of 16 bits"),
        (wav(fmt(frame_bytes=0), DATA), "0 bytes a frame"),
        (wav(fmt(rate=0), DATA), "0 Hz, expected 100 to 1000000 Hz"),
        (wav(fmt(rate=2**31), DATA), "2147483648 Hz, expected"),
        (wav(fmt(), chunk(b"data", SAMPLES, 202)), "cut short"),
        (wav(fmt(), chunk(b"data", SAMPLES, 0x7FFFFFFF)), "cut short"),
        (wav(chunk(b"LIST", b"", 0xFFFFFFFF), fmt(), DATA), "cut short"),
        (wav(fmt(), *[chunk(b"JUNK")] * MAX_CHUNKS, DATA), f"first {MAX_CHUNKS} chunks"),
    ],
)
def test_headers_that_contradict_are_refused(content, reason):
    with pytest.raises(DecodeError, match=rf"^a\.wav: [^\n]*{reason}[^\n]*; replace"):
        find(content)


@pytest.mark.parametrize("size", [0xFFFFF000, 0xFFFFFFFE, 0xFFFFFFFF])
def test_an_unknown_size_reads_to_the_end(size):
    assert find(wav(fmt(), chunk(b"data", SAMPLES, size))).n_frames == 100


def test_a_part_of_a_frame_at_the_end_is_left_out():
    assert find(wav(fmt(channels=3, bits=24), DATA)).n_frames == 200 // 9


def test_the_first_format_counts():
    assert find(wav(fmt(), fmt(channels=2), DATA)).layout.n_channels == 1


@pytest.mark.parametrize(
    "header",
    [fmt(), extensible(16, PCM_GUID), chunk(b"LIST", b"odd") + fmt()],
    ids=["plain", "extensible", "list"],
)
def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path, header):
    whole, file = wav(header, DATA), tmp_path / "a.wav"
    for n_bytes in range(len(whole)):
        file.write_bytes(whole[:n_bytes])
        with pytest.raises(DecodeError, match=r"^[^\n]*a\.wav: [^\n]*$"):
            read_payload(file)
    file.write_bytes(whole)
    assert read_payload(file).data.tobytes() == SAMPLES


def test_damaged_headers_decode_or_are_refused(tmp_path):
    """Whatever a header says: samples that are in the file, or a DecodeError."""
    whole, file = wav(chunk(b"LIST", b"odd"), extensible(16, PCM_GUID), DATA), tmp_path / "a.wav"
    g, n_decoded = np.random.default_rng(0), 0
    for _ in range(1500):
        content = bytearray(whole)
        for place in g.integers(0, len(whole) - len(SAMPLES), g.integers(1, 4)):
            content[place] = g.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF])
        file.write_bytes(content)
        try:
            payload = read_payload(file)
        except DecodeError:
            continue
        n_decoded += 1
        assert 0 < len(payload.data) == payload.n_frames * payload.layout.frame_bytes
    assert 100 < n_decoded < 1400


def test_a_small_file_that_claims_gigabytes_takes_no_memory(tmp_path):
    file = tmp_path / "a.wav"
    asked = []

    def allocate(n_bytes):
        asked.append(n_bytes)
        return np.empty(n_bytes, dtype=np.uint8)

    for size in (0xFFFFEFFF, 0x80000000):
        file.write_bytes(wav(fmt(), chunk(b"data", SAMPLES, size)))
        with pytest.raises(DecodeError, match="cut short"):
            read_payload(file, allocate=allocate)
        assert not asked
    file.write_bytes(wav(fmt(), chunk(b"data", SAMPLES, 0xFFFFFFFF)))
    read_payload(file, allocate=allocate)
    assert asked == [len(SAMPLES)]


def test_only_the_wanted_part_is_read(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(wav(fmt(), DATA))
    payload = read_payload(file, 0.005, 0.01)
    assert payload.layout == PcmLayout("s16", 1, RATE)
    assert payload.data.tobytes() == SAMPLES[80:160]
    assert payload.n_frames == 40
    assert scan_length(file, 0.005, 0.01) == (payload.layout, 40)

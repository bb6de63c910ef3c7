"""Files to be distrusted, by name: what they hold, and what becomes of them."""

import io
import os
import random
import socket
import struct

import numpy as np
import soundfile
from riff import FLOAT_GUID, PCM_GUID, RATE, chunk, extensible, fmt, wav

N = 8000  # samples of the tone: a second
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(N) / RATE)).astype(np.float32)
SAMPLES = (TONE * 2**15).astype("<i2").tobytes()
DATA = chunk(b"data", SAMPLES)
CUT = "cut short, its end is missing"
NOT_AUDIO = "not readable as audio"
SHARES = [0.02, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.97]


def decoded(n_frames=N, channels=1, rate=RATE):
    """Expect samples: so many frames, channels, and Hz."""
    return n_frames, channels, rate


def encode(container, subtype=None, samples=TONE, rate=RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype, **options)
    return file.getvalue()


def patch(content, place, new):
    """Put other bytes at a place: a number, or the bytes it comes after."""
    place = content.index(place) + len(place) if isinstance(place, bytes) else place
    return content[:place] + new + content[place + len(new) :]


def cut(container, share, **options):
    content = encode(container, **options)
    return content[: int(share * len(content))]


def floats(code, *values):
    bits = 8 * struct.calcsize(code)
    data = struct.pack(f"<{len(values)}{code}", *values)
    return wav(fmt(3, bits=bits), chunk(b"data", data))


def flac_that_says(n_frames):
    """Encode a tone; the header's 36 bits say that it is so long."""
    content = bytearray(encode("FLAC"))
    content[21] = content[21] & 0xF0 | n_frames >> 32
    content[22:26] = (n_frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def not_audio():
    noise = random.Random(0).randbytes(1024)
    return {
        "empty.wav": (b"", "the file is empty"),
        "one_byte.wav": (b"R", NOT_AUDIO),
        "zeros.wav": (bytes(4096), NOT_AUDIO),
        "noise.wav": (noise, NOT_AUDIO),
        "text.wav": (b"no sound here\n" * 9, NOT_AUDIO),
        "page.wav": (b"<!DOCTYPE html><html><body>404</body></html>", NOT_AUDIO),
        "page.mp3": (b"<!DOCTYPE html><html><body>404</body></html>", NOT_AUDIO),
        "text.raw": (b"no sound here\n" * 9, NOT_AUDIO),
        "text.vox": (b"no sound here\n" * 9, NOT_AUDIO),
        "text.gsm": (b"no sound here\n" * 9, NOT_AUDIO),
        "picture.ogg": (b"\x89PNG\r\n\x1a\n" + noise, NOT_AUDIO),
        "archive.flac": (b"PK\x03\x04" + noise, NOT_AUDIO),
        "only_riff.wav": (b"RIFF", NOT_AUDIO),
        "only_flac.flac": (b"fLaC", NOT_AUDIO),
        "only_ogg.ogg": (b"OggS", NOT_AUDIO),
        "only_id3.mp3": (b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + bytes(64), NOT_AUDIO),
        "avi.wav": (b"RIFF\xff\0\0\0AVI " + noise, NOT_AUDIO),
    }


def widths():
    subtypes = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]
    others = ["ALAW", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"]
    lengths = {"IMA_ADPCM": 8080, "GSM610": 8320}  # in whole blocks
    cases = {f"{name}.wav": (encode("WAV", name), decoded()) for name in subtypes}
    cases |= {f"{name}_x.wav": (encode("WAVEX", name), decoded()) for name in subtypes}
    cases |= {
        f"{name}.wav": (encode("WAV", name), decoded(lengths.get(name, N))) for name in others
    }
    for name in ("PCM_16", "PCM_24", "PCM_32", "FLOAT"):
        cases[f"{name}_rifx.wav"] = encode("WAV", name, endian="BIG"), decoded()
        cases[f"{name}_rf64.wav"] = encode("RF64", name), decoded()
    for container in ("W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"):
        cases[f"whole.{container.lower()}"] = encode(container), decoded()
    return cases | {
        "opus.ogg": (encode("OGG", "OPUS"), decoded()),
        "bits_12.wav": (wav(fmt(bits=12, frame_bytes=2), DATA), decoded()),
        "bits_0.wav": (wav(fmt(bits=0, frame_bytes=2), DATA), NOT_AUDIO),
        "bits_64.wav": (wav(fmt(bits=64), DATA), NOT_AUDIO),
        "bits_24_in_32.wav": (wav(extensible(32, PCM_GUID, 24), DATA), decoded(N // 2)),
        "float_16.wav": (wav(fmt(3, bits=16), DATA), NOT_AUDIO),
        "float_32_x.wav": (wav(extensible(32, FLOAT_GUID), DATA), decoded(N // 2)),
        "codec_0.wav": (wav(fmt(0), DATA), NOT_AUDIO),
        "codec_mp3.wav": (wav(fmt(0x55), DATA), NOT_AUDIO),
    }


def sizes():
    """Headers that lie about how much there is."""
    plain, alaw = encode("WAV"), encode("WAV", "ALAW")
    cases = {}
    for name, size in {"0": 0, "4": 4, "less": N, "more": 1 << 30, "most": 2**32 - 1}.items():
        riff = struct.pack("<I", size)
        cases[f"riff_{name}.wav"] = patch(plain, 4, riff), decoded()
        cases[f"riff_{name}_alaw.wav"] = patch(alaw, 4, riff), decoded()
    for name, size, expected in (
        ("0", 0, "no samples"),
        ("half", N, decoded(N // 2)),
        ("odd", N + 1, decoded(N // 2)),
        ("1_more", 2 * N + 1, CUT),
        ("2gib", 1 << 31, CUT),
        ("4gib", 0xFFFFEFFF, CUT),
        ("unknown", 0xFFFFFFFF, decoded()),
    ):
        cases[f"data_{name}.wav"] = wav(fmt(), chunk(b"data", SAMPLES, size)), expected
    huge = (1 << 40).to_bytes(8, "little")
    return cases | {
        "rf64_1tib.wav": (patch(encode("RF64"), 28, huge), decoded()),
        "flac_64g.flac": (flac_that_says(2**36 - 1), "68719476735 samples of 1 channels, too many"),
        "flac_64mib.flac": (flac_that_says(2**24), NOT_AUDIO),
        "flac_more.flac": (flac_that_says(N + 4096), NOT_AUDIO),
        "flac_less.flac": (flac_that_says(3000), decoded(3000)),
        "flac_unknown.flac": (flac_that_says(0), "does not say how long it is"),
        "flac_silence.flac": (encode("FLAC", samples=np.zeros(10**7)), decoded(10**7)),
        "w64_most.w64": (patch(encode("W64"), 16, b"\xff" * 7 + b"\x7f"), decoded()),
    }


def chunks():
    odd = chunk(b"LIST", b"odd")
    return {
        "list_before.wav": (wav(odd, fmt(), DATA), decoded()),
        "list_between.wav": (wav(fmt(), odd, chunk(b"JUNK", bytes(28)), DATA), decoded()),
        "list_after.wav": (wav(fmt(), DATA, odd), decoded()),
        "list_unpadded.wav": (wav(odd[:-1], fmt(), DATA), CUT),
        "list_4gib.wav": (wav(chunk(b"LIST", b"", 2**32 - 1), fmt(), DATA), CUT),
        "list_empty.wav": (wav(chunk(b"LIST"), fmt(), DATA), decoded()),
        "names_of_zeros.wav": (wav(chunk(bytes(4)), fmt(), DATA), decoded()),
        "bext_id3.wav": (wav(fmt(), chunk(b"bext", bytes(602)), DATA, chunk(b"id3 ")), decoded()),
        "two_data.wav": (wav(fmt(), DATA, DATA), decoded()),
        "two_fmt.wav": (wav(fmt(), fmt(channels=2), DATA), decoded()),
        "data_first.wav": (wav(DATA, fmt()), "its samples come before their format"),
        "data_only.wav": (wav(DATA), "its samples come before their format"),
        "fmt_only.wav": (wav(fmt()), "it ends before its samples"),
        "nothing.wav": (wav(), "it ends before its samples"),
        "fmt_14.wav": (wav(chunk(b"fmt ", bytes(14)), DATA), "its format takes 14 bytes"),
        "fmt_18.wav": (wav(fmt(extra=b"\0\0"), DATA), decoded()),
        "fmt_frame_0.wav": (wav(fmt(frame_bytes=0), DATA), "0 bytes a frame"),
        "fmt_frame_9.wav": (wav(fmt(frame_bytes=9), DATA), "9 bytes a frame"),
        "many.wav": (wav(fmt(), *[chunk(b"JUNK")] * 1000, DATA), "first 1000 chunks"),
        "garbage_after.wav": (wav(fmt(), DATA) + b"garbage" * 99, decoded()),
    }


def channels_and_rates():
    bad_rate = "its header says .* Hz, expected 100 to 1000000 Hz"
    return {
        "channels_0.wav": (wav(fmt(channels=0), DATA), "0 channels, expected 1 to 255"),
        "channels_2.wav": (wav(fmt(channels=2), DATA), decoded(N // 2, 2)),
        "channels_255.wav": (wav(fmt(channels=255), DATA), decoded(31, 255)),
        "channels_256.wav": (wav(fmt(channels=256), DATA), "256 channels, expected"),
        "channels_65535.wav": (wav(fmt(channels=65535, frame_bytes=2), DATA), "65535 channels"),
        "channels_0_alaw.wav": (wav(fmt(6, channels=0, bits=8), DATA), NOT_AUDIO),
        "channels_255_alaw.wav": (wav(fmt(6, channels=255, bits=8), DATA), decoded(62, 255)),
        "channels_256_alaw.wav": (wav(fmt(6, channels=256, bits=8), DATA), "256 channels"),
        "rate_0.wav": (wav(fmt(rate=0), DATA), bad_rate),
        "rate_1.wav": (wav(fmt(rate=1), DATA), bad_rate),
        "rate_99.wav": (wav(fmt(rate=99), DATA), bad_rate),
        "rate_100.wav": (wav(fmt(rate=100), DATA), decoded(rate=100)),
        "rate_7999.wav": (wav(fmt(rate=7999), DATA), decoded(rate=7999)),
        "rate_16001.wav": (wav(fmt(rate=16_001), DATA), decoded(rate=16_001)),
        "rate_1m.wav": (wav(fmt(rate=1_000_000), DATA), decoded(rate=1_000_000)),
        "rate_2_31.wav": (wav(fmt(rate=2**31), DATA), bad_rate),
        "rate_2_32.wav": (wav(fmt(rate=2**32 - 1), DATA), bad_rate),
        "rate_0_alaw.wav": (wav(fmt(6, rate=0, bits=8), DATA), NOT_AUDIO),
        "rate_1_alaw.wav": (wav(fmt(6, rate=1, bits=8), DATA), bad_rate),
        "rate_2_31_alaw.wav": (wav(fmt(6, rate=2**31, bits=8), DATA), NOT_AUDIO),
    }


def lengths():
    short = {n: wav(fmt(), chunk(b"data", SAMPLES[: 2 * n])) for n in (1, 2, 3, 127, 255, 256)}
    cases = {f"samples_{n}.wav": (content, decoded(n)) for n, content in short.items()}
    for container in ("WAV", "FLAC", "OGG", "MP3", "AIFF"):
        nothing = encode(container, samples=TONE[:0])
        cases[f"samples_0.{container.lower()}"] = nothing, f"no samples|the file is empty|{CUT}"
    return cases | {"sample_1.flac": (encode("FLAC", samples=TONE[:1]), decoded(1))}


def truncated():
    files = {"flac": {}, "ogg": {}, "mp3": {}, "opus": {"subtype": "OPUS"}, "au": {}, "aiff": {}}
    return {
        f"cut_{share}.{name}": (
            cut("OGG" if name == "opus" else name.upper(), share, **options),
            f"{CUT}|{NOT_AUDIO}|no samples",
        )
        for name, options in files.items()
        for share in SHARES
    }


def numbers():
    bad = "samples are NaN or infinite"
    return {
        "nan.wav": (floats("f", 0.0, float("nan"), 0.5), f"1 {bad}"),
        "inf.wav": (floats("f", float("inf"), -float("inf")), f"2 {bad}"),
        "nan_64.wav": (floats("d", 0.0, float("nan")), f"1 {bad}"),
        "huge_64.wav": (floats("d", 1e300, 0.0), f"1 {bad}"),
        "nan_rifx.wav": (encode("WAV", "FLOAT", TONE * np.nan, endian="BIG"), f"{N} {bad}"),
        "nan.aiff": (encode("AIFF", "FLOAT", TONE * np.nan), f"{N} {bad}"),
        "loud.wav": (floats("f", 1e30, -1e30), decoded(2)),
        "denormal.wav": (floats("f", 1e-45, -1e-45, 1e-40), decoded(3)),
        "denormal_64.wav": (floats("d", 5e-324, -5e-324), decoded(2)),
        "minus_zero.wav": (floats("f", -0.0), decoded(1)),
    }


def names():
    good = wav(fmt(), DATA)
    odd = [
        "-",
        "-rf.wav",
        "~.wav",
        ".wav",
        "two  spaces .wav",
        "tab\tand\nnewline.wav",
        "Schluss mit Ümlaut, 日本語, 🐕.wav",
        "e\u0301 decomposed.wav",
        os.fsdecode(b"not \xff UTF-8.flac"),
        "quote ' \" ` $HOME %s {0} \\ *?.wav",
        "CON.wav",
        "no_suffix",
        "SUFFIX.WAV",
        "wrong.mp3",
        "wrong.raw",
        "a" * 251 + ".wav",
    ]
    flac = encode("FLAC")
    return {name: (flac if name.endswith("c") else good, decoded()) for name in odd} | {
        "flac.wav": (flac, decoded()),
        "flac.raw": (flac, decoded()),
        "a" * 252 + ".wav": (None, "File name too long"),
        "missing.wav": (None, "No such file or directory"),
        "not_a_folder.wav/a.wav": (None, "No such file or directory"),
    }


def make_sparse(head, n_bytes):
    def make(path):
        with path.open("wb") as file:
            file.write(head)
            file.truncate(n_bytes)

    return make


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)  # of the working folder, for its whole path may be too long


def make_unreadable(path):
    path.write_bytes(wav(fmt(), DATA))
    path.chmod(0)


def special():
    kind = "a folder, pipe or device, not a file"
    data_2gib = wav(fmt(), chunk(b"data", b"", 1 << 31))
    rf64 = patch(encode("RF64"), 20, (1 << 40).to_bytes(8, "little") * 2)
    return {
        "folder.wav": (lambda path: path.mkdir(), kind),
        "pipe.wav": (os.mkfifo, kind),
        "pipe.flac": (os.mkfifo, kind),
        "socket.wav": (make_socket, kind),
        "null.wav": (lambda path: path.symlink_to("/dev/null"), kind),
        "zero.wav": (lambda path: path.symlink_to("/dev/zero"), kind),
        "link.wav": (lambda path: path.symlink_to("list_after.wav"), decoded()),
        "link_to_folder.wav": (lambda path: path.symlink_to("folder.wav"), kind),
        "link_to_pipe.wav": (lambda path: path.symlink_to("pipe.wav"), kind),
        "dangling.wav": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        "loop.wav": (lambda path: path.symlink_to("loop.wav"), "Too many levels of symbolic links"),
        "loop_1.wav": (lambda path: path.symlink_to("loop_2.wav"), "Too many levels"),
        "loop_2.wav": (lambda path: path.symlink_to("loop_1.wav"), "Too many levels"),
        "unreadable.wav": (make_unreadable, "Permission denied"),
        "sparse_zeros.wav": (make_sparse(b"", 1 << 40), NOT_AUDIO),
        "sparse_data.wav": (make_sparse(data_2gib, 1 << 32), "at most 536,870,912 are expected"),
        "sparse_rf64.wav": (make_sparse(rf64, 1 << 41), "at most 536,870,912 are expected"),
    }


CASES = (
    {"good.wav": (wav(fmt(), DATA), decoded())}
    | not_audio()
    | widths()
    | sizes()
    | chunks()
    | channels_and_rates()
    | lengths()
    | truncated()
    | numbers()
    | names()
    | special()
)

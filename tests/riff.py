"""WAV files byte by byte, so that a test can have them lie."""

import struct

RATE = 8000
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
FLOAT_GUID = bytes.fromhex("0300000000001000800000aa00389b71")


def chunk(name, content=b"", size=None):
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + b"\0" * (len(content) % 2)


def fmt(code=1, channels=1, rate=RATE, bits=16, frame_bytes=None, extra=b""):
    frame_bytes = channels * bits // 8 if frame_bytes is None else frame_bytes
    rates = rate, rate * frame_bytes % 2**32
    return chunk(b"fmt ", struct.pack("<HHIIHH", code, channels, *rates, frame_bytes, bits) + extra)


def extensible(bits, guid, valid_bits=None, **options):
    valid_bits = bits if valid_bits is None else valid_bits
    return fmt(0xFFFE, bits=bits, extra=struct.pack("<HHI", 22, valid_bits, 4) + guid, **options)


def wav(*chunks):
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)

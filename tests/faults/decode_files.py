"""Decode files in a process of little memory: python decode_files.py LISTING SAMPLE_RATE MARGIN.

The listing is a JSON list of paths; the first must be a good file. Writes two lines of JSON for
each: its path before it is touched, and what became of it.
"""

import json
import os
import resource
import sys
from pathlib import Path

import torch

from audioml.decode import DecodeError, decode_clip, read_payload, scan_length


def main():
    listing, sample_rate, margin = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    paths = [Path(path) for path in json.loads(listing.read_text())]
    torch.set_num_threads(1)
    decode(paths[0], sample_rate)  # what libraries take once is no file's doing
    limit_memory(margin)
    if os.geteuid() == 0:  # who may read everything
        Path().chmod(0o755)
        os.seteuid(65_534)
    for path in paths:
        print(json.dumps(str(path)), flush=True)
        print(json.dumps(decode(path, sample_rate)), flush=True)


def decode(path, sample_rate):
    try:
        payload = read_payload(path)
        assert scan_length(path) == (payload.layout, payload.n_frames)
        clip = decode_clip(path, sample_rate)
    except DecodeError as error:
        return str(error)
    layout = payload.layout
    return [payload.n_frames, layout.n_channels, layout.sample_rate, len(clip)]


def limit_memory(margin):
    """Let this process have so much address space more than it has now; Linux."""
    status = Path("/proc/self/status").read_text()
    in_use = next(line for line in status.splitlines() if line.startswith("VmSize"))
    limit = (int(in_use.split()[1]) << 10) + margin
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()

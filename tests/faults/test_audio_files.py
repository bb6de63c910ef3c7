"""Files that lie, are cut, or are no files: decoded as expected, or refused in one clear line.

They are all decoded by one process that may take 512 MiB more than it had before the first of them:
a crash or a hang is told with the name of its file.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from files import manifest_of
from sound_files import CASES

from audioml.clips import scan_headers
from audioml.decode import DecodeError, PcmLayout, resampled_length
from audioml.decode.layout import MAX_CLIP_SAMPLES, check_conversion

PROGRAM = Path(__file__).with_name("decode_files.py")
RATE = 8000
MARGIN = 512 << 20  # bytes
HANG_S = 250

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pipes, links, address space")


def make(folder, name, content):
    path = folder / name
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each file: numbers of what was decoded, or the error."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, (content, _) in CASES.items():
            make(folder, name, content)
    listing = folder.with_name("listing.json")
    listing.write_text(json.dumps(list(CASES)))
    command = [sys.executable, str(PROGRAM), str(listing), str(RATE), str(MARGIN)]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S
        )
    except subprocess.TimeoutExpired as hang:
        pytest.fail(f"hangs at {(hang.stdout or b'').splitlines()[-1:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    error = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"ends with {done.returncode} at {lines[-1:]}: {error}"
    return dict(zip(lines[::2], lines[1::2], strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_file_has_its_outcome(outcomes, name):
    expected, outcome = CASES[name][1], outcomes[name]
    if isinstance(expected, str):
        assert isinstance(outcome, str), "was decoded"
        assert re.search(f"^{re.escape(name)}: .*(?:{expected}).*; .*", outcome)
        assert "\n" not in outcome
    else:
        n_frames, _, rate = expected
        assert outcome == [*expected, resampled_length(n_frames, rate, RATE)]


def test_there_are_enough():
    assert len(CASES) >= 200


def test_sounds_that_are_refused_take_no_place_in_a_store(tmp_path):
    names = ["good.wav", "rate_100.wav", "flac_64g.flac", "data_2gib.wav", "sparse_data.wav"]
    for name in names:
        make(tmp_path, name, CASES[name][0])
    headers = scan_headers(manifest_of(tmp_path, names), 22_050)
    assert [header.length(22_050) for header in headers] == [22_050, 0, 0, 0, 0]


@pytest.mark.parametrize(("rate", "wanted"), [(100, 12_801), (100, 384_000), (1_000_000, 7812)])
def test_rates_too_far_apart_are_refused(tmp_path, rate, wanted):
    path, layout = tmp_path / "a.wav", PcmLayout("u8", 1, rate)
    match = f"a.wav: its header says {rate} Hz, more than 128 times away from .*={wanted}; set"
    with pytest.raises(DecodeError, match=match):
        check_conversion(path, layout, 10, wanted)
    check_conversion(path, layout, 10, 10_000)


def test_a_clip_that_grows_too_long_is_refused(tmp_path):
    layout, n_frames = PcmLayout("u8", 1, 100), MAX_CLIP_SAMPLES // 128
    check_conversion(tmp_path / "a.wav", layout, n_frames, 12_800)
    with pytest.raises(DecodeError, match=r"a\.wav: a clip of 536,871,040 samples, at most"):
        check_conversion(tmp_path / "a.wav", layout, n_frames + 1, 12_800)

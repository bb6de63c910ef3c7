import io
import logging
import os
import subprocess
import sys
import termios

import pytest

from audioml.progress import Console

PROGRAM = """
import logging, sys, time
from audioml.progress import Console, progress_bar, track
log = logging.getLogger("audioml")
log.setLevel(logging.INFO)
log.addHandler(Console(sys.stdout))
for i in track(range(10), task="listen", total=10, unit="clip"):
    time.sleep(0.1)
with progress_bar(task="write", total=10, unit="B") as bar:
    for i in range(10):
        time.sleep(0.1)
        bar.update()
        if i == 8:
            log.info("a line")
"""


def test_without_a_terminal_there_is_no_bar():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"a line\n", b"")


def test_on_a_terminal_bars_come_and_go():
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # Linux's end of a terminal
            break
    os.close(ours)
    assert process.wait() == 0
    assert b"listen" in shown
    assert b"write" in shown
    lines = [line.rpartition(b"\r")[2] for line in shown.replace(b"\r\n", b"\n").split(b"\n")]
    assert [line.strip() for line in lines] == [b"a line", b""]  # nothing else stays


def test_lines_are_written_at_once_and_a_lost_reader_is_told():
    class Stream(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    record = logging.LogRecord("audioml", logging.INFO, "", 0, "%d", (5,), None)
    stream = io.StringIO()
    Console(stream).emit(record)
    assert stream.getvalue() == "5\n"
    with pytest.raises(BrokenPipeError):
        Console(Stream()).emit(record)

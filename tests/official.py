"""Where official data lie, if they do."""

import os
from pathlib import Path

# The official data are not the project's to pass on: a folder with ESC-50-meta/ and ESC-10/ widens
# the tests where there is one.
DATA = Path(os.environ.get("AUDIOML_DATA", "data"))
OFFICIAL_TABLE = DATA / "ESC-50-meta" / "esc50.csv"
ESC10_FILES = sorted((DATA / "ESC-10" / "audio").glob("*.ogg"))[::33]

"""``python -m audioml``: the same as ``audioml``."""

import sys

from audioml.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Train a sound classifier: ``python train.py [CONFIG.yaml ...] [section.key=value ...]``.

Without arguments it trains the baseline CNN on the built-in synthetic data.
``configs/default.yaml`` lists every setting; ``python train.py --help`` tells the rest.
"""

import sys

from audioml.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

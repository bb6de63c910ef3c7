"""What every verb's module needs: the kind of argument parser, and exit codes."""

import argparse
from typing import Final, TypeAlias

EXIT_DEFECT: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 130
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

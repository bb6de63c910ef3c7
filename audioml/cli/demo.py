"""``audioml demo``."""

import argparse
from pathlib import Path

from audioml.cli.verbs import Verbs, completes


def add_demo(verbs: Verbs) -> None:
    """Add ``audioml demo``."""
    demo = verbs.add_parser(
        "demo",
        help="a local page: record or drop a sound, see what a model hears in it and where",
        description="Show a page, on this machine alone, that records or takes a sound and shows "
        "its waveform and log-mel, the five likeliest classes, where in time and frequency the "
        "evidence lies, and, for long sounds, the probabilities over time. Ctrl-C ends it. Needs "
        "python -m pip install 'audioml[demo]'.",
        epilog="examples:\n"
        "  audioml demo runs/try\n"
        "  audioml demo runs/try --port 8000 --no-browser --max-s 300 --max-mb 100\n",
    )
    model = demo.add_argument(
        "model", type=Path, metavar="MODEL", help="folder of a run, or a model in a file"
    )
    completes(model, "file")
    demo.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; any but the default lets others in (default: %(default)s)",
    )
    demo.add_argument("--port", type=int, default=7860, help="its port (default: %(default)s)")
    demo.add_argument("--no-browser", action="store_true", help="do not open the browser")
    demo.add_argument(
        "--max-s",
        type=float,
        default=60.0,
        metavar="S",
        help="longest sound that is taken, in seconds (default: %(default)g)",
    )
    demo.add_argument(
        "--max-mb",
        type=float,
        default=20.0,
        metavar="MB",
        help="largest file that is taken, in megabytes (default: %(default)g)",
    )
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from audioml.demo import Limits, run_demo

    run_demo(
        arguments.model,
        host=arguments.host,
        port=arguments.port,
        opens_browser=not arguments.no_browser,
        limits=Limits(max_s=arguments.max_s, max_mb=arguments.max_mb),
    )
    return 0

"""``audioml export``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioml.cli.verbs import Verbs, add_json, completes, print_json

if TYPE_CHECKING:
    from audioml.export import Exported

_FORMATS = ("onnx", "torch", "safetensors")


def add_export(verbs: Verbs) -> None:
    """Add ``audioml export``."""
    export = verbs.add_parser(
        "export",
        help="write a trained model for other programs",
        description="Write a model with its front end inside: waveform [batch, time] in, "
        "probability [batch, class] and level_db [batch, band, frame] out, in float32; labels, "
        "sample rate and settings are in the metadata. Before the file is written it is compared "
        "with the model, on the test clips of its run where they are there.",
        epilog="examples:\n"
        "  audioml export runs/RUN --format onnx\n"
        "  audioml export runs/RUN --format torch --out dog.pt2\n"
        "  audioml export runs/RUN/checkpoints/best.pt --format safetensors\n",
    )
    model = export.add_argument(
        "model", type=Path, metavar="MODEL", help="a run folder, model.safetensors or a checkpoint"
    )
    export.add_argument(
        "--format",
        choices=_FORMATS,
        required=True,
        help="onnx; torch, a program of torch.export; safetensors, a copy for audioml",
    )
    out = export.add_argument("--out", type=Path, metavar="FILE", help="default: beside the model")
    export.add_argument("--force", action="store_true", help="replace a file that is there")
    add_json(export)
    for argument in (model, out):
        completes(argument, "file")
    export.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from audioml.export import export_model

    exported = export_model(arguments.model, arguments.format, arguments.out, force=arguments.force)
    if arguments.json:
        print_json(_content(exported))
    else:
        print(_text(exported))
    return 0


def _content(exported: "Exported") -> dict[str, Any]:
    parity = exported.parity
    return {
        "path": str(exported.path),
        **{key: value for key, value in exported.facts.items() if key != "config"},
        "checked_on": exported.sounds or None,
        "level_difference_db": parity.level_db if parity else None,
        "probability_difference": parity.probability if parity else None,
    }


def _text(exported: "Exported") -> str:
    facts, parity = exported.facts, exported.parity
    rate = facts["sample_rate"]
    size = f"{exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB"
    if parity is None:
        return f"written   {size}"
    length = (
        f"any length from {facts['least_time'] / rate:.2g} s"
        if facts["dynamic_time"]
        else f"exactly {facts['n_time']} samples long, as its network is"
    )
    return (
        f"written   {size}: sounds at {rate} Hz, {length}, any number at once\n"
        f"checked   on {exported.sounds}: {parity.text()}"
    )

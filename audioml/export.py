"""Trained models for other programs, checked against the model before a file is written."""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

import audioml
from audioml.atomic import replacing
from audioml.classifier import Classifier
from audioml.config import to_yaml
from audioml.errors import UserError
from audioml.model_files import ModelContent, read_model, write_model
from audioml.parity import (
    LEVEL_TOLERANCE_DB,
    PROBABILITY_TOLERANCE,
    Model,
    Parity,
    compare_models,
    generate_sounds,
    make_batches,
    read_test_clips,
)
from audioml.portable import PortableClassifier

Format = Literal["onnx", "torch", "safetensors"]

SUFFIXES: Final[dict[Format, str]] = {
    "onnx": ".onnx",
    "torch": ".pt2",
    "safetensors": ".safetensors",
}
FACTS_FILE: Final = "audioml.json"  # among the extra files of a .pt2
_OPSET: Final = 18
_OUTPUTS: Final = ("probability", "level_db")
_N_GENERATED: Final = 64
_LONGER: Final = 1.37  # clips, the length of sounds that the check tries beside
_LEAST_TRACED: Final = 3  # sounds; of one, a dynamic size would be taken for a constant


class ExportError(UserError):
    """A model that can't be exported; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written.

    Args:
        path: The file.
        facts: What its metadata say.
        sounds: What it was checked on; "" for a copy.
        parity: What the check found; None for a copy.
    """

    path: Path
    facts: dict[str, Any]
    sounds: str = ""
    parity: Parity | None = None


def export_model(
    source: Path, style: Format, out: Path | None = None, *, force: bool = False
) -> Exported:
    """Write a model for other programs: waveforms in, probabilities out.

    Args:
        source: A finished run's folder, its ``model.safetensors``, or a checkpoint (.pt).
        style: "onnx", "torch" (a program of ``torch.export``) or "safetensors" (for audioml).
        out: The file; None for one beside the model.
        force: Whether a file that is there is replaced.

    Raises:
        UserError: If the model can't be used, a package is missing, the file can't be written, or
            what was made says something else than the model does.
    """
    content = read_model(source)
    path = _choose_path(content.path, style, out, force)
    if style == "safetensors":
        return _copy(content, path)
    if style == "onnx":
        _require_packages()
    classifier = Classifier.from_content(_in_float32(content), "cpu")
    portable = PortableClassifier(classifier)
    facts = _describe(content) | {
        "dynamic_time": portable.least_time is not None,
        "least_time": portable.least_time or classifier.n_time,
    }
    write, read = (to_onnx, run_onnx) if style == "onnx" else (to_torch, run_torch)
    data = write(trace(portable, classifier.n_time), facts)
    try:
        parity, sounds = _check(classifier, read(data), portable.least_time)
    except RuntimeError as error:  # of programs that older versions of torch make
        reason = str(error).partition("\n")[0]
        raise ExportError(
            f"{path}: not written, for as {style} it does not run ({reason}); use --format "
            f"safetensors, or torch 2.14, with which it does (here: {torch.__version__})"
        ) from error
    if not parity.holds:
        raise ExportError(
            f"{path}: not written, for as {style} it is not the same model ({parity.text()} on "
            f"{sounds}; allowed are {LEVEL_TOLERANCE_DB} dB and {PROBABILITY_TOLERANCE:g}); use "
            "--format safetensors, and report it"
        )
    with replacing(path) as file:
        file.write(data)
    return Exported(path=path, facts=facts, sounds=sounds, parity=parity)


def trace(portable: PortableClassifier, n_time: int) -> torch.export.ExportedProgram:
    """Write down what a model does, for any batch and, where it allows it, any length.

    Args:
        portable: The model.
        n_time: Samples of a clip.
    """
    dimensions: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if portable.least_time is not None:
        dimensions[1] = torch.export.Dim("time", min=portable.least_time)
        n_time = max(n_time, 4 * portable.least_time)  # where no size inside is 1 by chance
    with _quiet():
        program = torch.export.export(
            portable,
            (torch.zeros(_LEAST_TRACED, n_time),),
            dynamic_shapes=(dimensions,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for node in program.graph.nodes:  # the paths of this machine are nobody's business
        node.meta.pop("stack_trace", None)
    return program


def to_onnx(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> bytes:
    """Make a model of ONNX; facts become its metadata, all but text as JSON."""
    with _quiet():
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=_OPSET,
            verbose=False,
            input_names=["waveform"],
            output_names=list(_OUTPUTS),
        )
    model = exported.model_proto
    model.producer_name, model.producer_version = "audioml", audioml.__version__
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key, value=text)
    graph = model.graph
    del graph.value_info[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # the paths of this machine are nobody's business
    for value in (*graph.input, *graph.output):
        names = ("batch", "band", "frame") if value.name == "level_db" else ("batch", "time")
        for name, size in zip(names, value.type.tensor_type.shape.dim, strict=True):
            if size.dim_param:
                size.dim_param = name
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def run_onnx(data: bytes) -> Model:
    """Load a model of ONNX into ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(waveform: Tensor) -> tuple[Tensor, Tensor]:
        probability, level_db = session.run(list(_OUTPUTS), {"waveform": waveform.numpy()})
        return torch.from_numpy(probability), torch.from_numpy(level_db)

    return run


def to_torch(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> bytes:
    """Make a .pt2, with facts as JSON in an extra file."""
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={FACTS_FILE: json.dumps(facts)})
    return content.getvalue()


def run_torch(data: bytes) -> Model:
    """Load a .pt2."""
    with _quiet():
        module: Model = torch.export.load(io.BytesIO(data)).module()
    return module


def _choose_path(model: Path, style: Format, out: Path | None, force: bool) -> Path:
    """Choose the file that is written.

    Raises:
        ExportError: If it can't be.
    """
    path = model.with_suffix(SUFFIXES[style]) if out is None else out
    if not path.parent.is_dir():
        raise ExportError(f"{path}: no folder {path.parent}; make it, or give another --out")
    if path.is_dir():
        raise ExportError(f"{path}: a folder; give the name of a file to --out")
    if path.exists() and not force:
        raise ExportError(f"{path}: it is there already; give --force or another --out")
    return path


def _copy(content: ModelContent, path: Path) -> Exported:
    """Write a model for audioml itself."""
    if content.path.suffix == ".safetensors":
        data = content.path.read_bytes()
        with replacing(path) as file:
            file.write(data)
    else:
        write_model(
            path,
            config=content.config,
            labels=content.labels,
            is_multi_label=content.is_multi_label,
            weights=content.weights,
            statistics=content.statistics,
            train_sources=sorted(content.train_sources),
            chosen="best" if content.path.stem == "best" else "last",
        )
    return Exported(path=path, facts=_describe(content))


def _require_packages() -> None:
    wanted = ("onnx", "onnxscript", "onnxruntime")
    lacking = [name for name in wanted if importlib.util.find_spec(name) is None]
    if lacking:
        raise ExportError(
            f"--format onnx needs {', '.join(lacking)}: python -m pip install 'audioml[onnx]'"
        )


def _in_float32(content: ModelContent) -> ModelContent:
    config = content.config
    return replace(
        content,
        config=replace(
            config,
            train=replace(config.train, amp="fp32"),
            frontend=replace(config.frontend, dtype="float32"),
        ),
    )


def _describe(content: ModelContent) -> dict[str, Any]:
    """List what users of the file must know; lengths in samples."""
    audio = content.config.audio
    return {
        "version": audioml.__version__,
        "labels": list(content.labels),
        "is_multi_label": content.is_multi_label,
        "sample_rate": audio.sample_rate,
        "n_time": audio.n_time,
        "config": to_yaml(content.config),
    }


def _check(classifier: Classifier, model: Model, least_time: int | None) -> tuple[Parity, str]:
    n_time = classifier.n_time
    clips, sounds = read_test_clips(classifier.config)
    if clips is None:
        clips = generate_sounds(_N_GENERATED, n_time)
        sounds = f"{_N_GENERATED} generated sounds ({sounds})"
    lengths = [n_time] if least_time is None else [n_time, round(_LONGER * n_time), least_time]
    return compare_models(classifier, model, make_batches(clips, lengths)), sounds


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's remarks on its own exporter off the screen, and its fused attention out."""
    level, fused = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    logging.disable(logging.WARNING)
    torch.backends.mha.set_fastpath_enabled(False)  # an operation that ONNX has not
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        logging.disable(level)

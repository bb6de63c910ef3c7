"""Tensors from files that nobody vouches for: nothing in them is run, nothing they say is believed.

torch restricts what a file may unpickle, but it does not notice that bytes were changed, and it
inflates records that were deflated. ``torch.save`` stores them, with a checksum each, so a record
that is deflated, lies over another or does not fit its checksum is refused before torch sees it,
and a file takes no more memory than its own size.
"""

import struct
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

_ZIP: Final = b"PK\x03\x04"  # begins a file of torch, unless it is older than torch 1.6
# What torch and zipfile raise of damaged files.
_DAMAGES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class TensorFileError(ValueError):
    """A file that can't be read or trusted; the message, one line, names it and says why."""


def read_tensor_file(file: Path) -> Any:
    """Read tensors and plain data to the CPU; no code in the file is run.

    Args:
        file: A file of torch or, if its name ends in .safetensors, of safetensors.

    Returns:
        What was saved.

    Raises:
        TensorFileError: If it is damaged, another kind of file, or holds more than tensors and
            plain data.
    """
    try:
        return _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    except UnpicklingError as error:
        raise TensorFileError(
            f"{file}: not a file of torch, or one that holds more than tensors, which is never run"
        ) from error
    except _DAMAGES as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TensorFileError(f"{file}: damaged or another kind of file ({reason})") from error


def _read_torch(file: Path) -> Any:
    with file.open("rb") as content:
        if content.read(len(_ZIP)) == _ZIP:
            _check_records(file)
    with warnings.catch_warnings(action="ignore"):  # torch warns of damage that it then raises
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _check_records(file: Path) -> None:
    """Refuse what ``torch.save`` would not have written.

    Raises:
        BadZipFile: With what is wrong.
    """
    with ZipFile(file) as pack:
        records = pack.infolist()
        if any(record.compress_type != ZIP_STORED for record in records):
            raise BadZipFile("a compressed record, which torch does not write")
        if sum(record.file_size for record in records) > file.stat().st_size:
            raise BadZipFile("its records claim to be larger than the file")
        if (name := pack.testzip()) is not None:
            raise BadZipFile(f"the checksum of {name!r} is wrong")

"""Files of weights that are cut, changed or lie about themselves: one clear line each."""

import io
import json
import re
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save

from audioml.config import ConfigError, ModelConfig
from audioml.models import build_model
from audioml.models.weights import read_weights

N_CLASSES = 5


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return build_model(ModelConfig(width=4), n_classes=N_CLASSES, input_size=(64, 72)).state_dict()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pt"


def to_bytes(content, *, legacy=False):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def refusal(file, **settings):
    """Begin a network with a file, which must end in one line of error, and return it."""
    config = ModelConfig(**{"width": 4, **settings}, weights=str(file))
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        build_model(config, n_classes=N_CLASSES, input_size=(64, 72))
    assert str(error.value).startswith(f"{file}: ")
    assert "set model." in str(error.value)
    return str(error.value)


def is_same(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


KINDS = {
    "zip": to_bytes,
    "legacy": lambda state: to_bytes(state, legacy=True),
    "safetensors": save,
}


def name_for(kind):
    return "weights.safetensors" if kind == "safetensors" else "weights.pt"


@pytest.mark.parametrize("kind", KINDS)
def test_cut_at_each_sixteenth(tmp_path, state, kind):
    content, file = KINDS[kind](state), tmp_path / name_for(kind)
    for sixteenth in range(16):
        file.write_bytes(content[: len(content) * sixteenth // 16])
        refusal(file)
    file.write_bytes(content)
    assert is_same(read_weights(file), state)


@pytest.mark.parametrize(
    "content", [b"", b"P", b"PK\x03\x04", b"hello", b"<html></html>", bytes(99)]
)
@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_something_else(tmp_path, kind, content):
    file = tmp_path / name_for(kind)
    file.write_bytes(content)
    refusal(file)


def flips(content, n):
    """Give ``n`` copies of some bytes, each with one bit changed, all over them."""
    for number in range(n):
        place = len(content) * number // n
        yield content[:place] + bytes([content[place] ^ 1 << number % 8]) + content[place + 1 :]


def read(file):
    """Read weights, or give the line of error."""
    try:
        return read_weights(file)
    except ConfigError as error:
        return str(error)


def test_a_flipped_bit_is_found_or_changes_nothing(file, state):
    """Files of torch hold a checksum of every tensor, which torch itself does not look at."""
    small = {key: state[key] for key in ("stem.0.weight", "stem.1.weight", "head.1.bias")}
    errors = []
    for content in flips(to_bytes(small), 400):
        file.write_bytes(content)
        found = read(file)
        if isinstance(found, str):
            errors.append(found)
        else:
            assert is_same(found, small)
    assert 100 < len(errors) < 400
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize("kind", ["legacy", "safetensors"])
def test_a_flipped_bit_without_a_checksum_is_no_crash(tmp_path, kind):
    small = {"a": torch.arange(4.0), "b": torch.zeros(2, 3), "c": torch.tensor(3)}
    content, file = KINDS[kind](small), tmp_path / name_for(kind)
    errors = []
    for changed in flips(content, len(content)):
        file.write_bytes(changed)
        found = read(file)
        if isinstance(found, str):
            errors.append(found)
        else:
            assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    assert len(errors) > len(content) / 2
    assert not any("\n" in error for error in errors)


def repack(content, compression=zipfile.ZIP_STORED, **changed):
    """Write a file of torch anew, some records changed: by name, ``data_0`` for data/0."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", compression) as new,
    ):
        for record in old.infolist():
            name = record.filename.partition("/")[2].replace("/", "_").replace(".", "_")
            new.writestr(record.filename, changed.get(name, old.read(record)))
    return buffer.getvalue()


def test_records_that_would_be_inflated(file):
    content = to_bytes({"a": torch.zeros(2_000_000)})
    bomb = repack(content, zipfile.ZIP_DEFLATED)
    assert len(bomb) < len(content) / 100
    file.write_bytes(bomb)
    assert "a compressed record, which torch does not write" in refusal(file)


def test_records_that_lie_over_each_other(file):
    content = bytearray(to_bytes({"a": torch.zeros(1000), "b": torch.ones(1000)}))
    entries = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    for entry in entries:  # every record is the first and has its size, as far as the list says
        content[entry + 16 : entry + 28] = struct.pack("<III", 0, len(content), len(content))
    file.write_bytes(content)
    assert "its records claim to be larger than the file" in refusal(file)


def test_a_tensor_larger_than_its_bytes(file):
    content = to_bytes({"a": torch.arange(10.0)})
    with zipfile.ZipFile(io.BytesIO(content)) as pack:
        program = pack.read("archive/data.pkl")
    file.write_bytes(repack(content, data_pkl=program.replace(b"K\n", b"M\xe8\xfd")))
    refusal(file)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, 1, 5, 5).to_sparse(),
        torch.zeros(4, 1, 5, 5, dtype=torch.complex64),
        torch.zeros(4, 1, 5, 5, dtype=torch.uint8),
        torch.zeros(4, 1, 5, 5, dtype=torch.float8_e4m3fn),
        torch.zeros(4, 1, 5, 5, device="meta"),
    ],
    ids=["sparse", "complex", "bytes", "float8", "meta"],
)
def test_a_tensor_of_another_kind(file, state, tensor):
    torch.save({**state, "stem.0.weight": tensor}, file)
    assert "not dense tensors by name ('stem.0.weight')" in refusal(file)


@pytest.mark.parametrize("shape", [(), (0,), (4,), (1, 2, 3, 4, 5), (4, 0, 5, 5), (0, 10**12)])
@pytest.mark.parametrize("name", ["cnn", "ast", "resnet50"])
def test_tensors_of_other_shapes(file, name, shape):
    config = ModelConfig(name=name, width=4, weights="none")
    own = build_model(config, n_classes=N_CLASSES, input_size=(64, 72)).state_dict()
    torch.save({key: torch.zeros(shape) for key in own}, file)
    assert "of another shape" in refusal(file, name=name)
    assert re.search("of another shape|the data have 5", refusal(file, name=name, load_head=True))


@pytest.mark.parametrize("ema", [torch.zeros(3), [1, 2], {3: torch.zeros(1)}, "module.", 7])
def test_an_average_that_is_none(file, state, ema):
    """The plain weights don't take its place: they would be other ones than the run evaluated."""
    torch.save({"model": state, "ema": ema}, file)
    assert "holds no weights" in refusal(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_positions_of_another_size_and_type(file, dtype):
    config = ModelConfig(name="ast", weights="none")
    model = build_model(config, n_classes=N_CLASSES, input_size=(128, 216))
    torch.save({key: tensor.to(dtype) for key, tensor in model.state_dict().items()}, file)
    config = ModelConfig(name="ast", weights=str(file))
    other = build_model(config, n_classes=N_CLASSES, input_size=(64, 72))
    assert other.embed.positions.dtype == torch.float32


def test_other_classes(file, state):
    torch.save(state | {"head.1.weight": torch.zeros(7, 32), "head.1.bias": torch.zeros(7)}, file)
    said = refusal(file, load_head=True)
    assert "its last layer has 7 classes, the data have 5; set model.load_head=false" in said


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def lie(header, data=bytes(8), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


LIES = {
    "a header of 8 EiB": lie({"a": F32}, length=2**63),
    "a header of 2^64 - 1 bytes": lie({"a": F32}, length=2**64 - 1),
    "a header of 1 TiB": lie({"a": F32}, length=2**40),
    "a header of 100 MB": lie({"a": F32}, length=100_000_000),
    "a header beyond the file": lie({"a": F32}, length=len(json.dumps({"a": F32})) + 9),
    "a header of nothing": lie({"a": F32}, length=0),
    "a header cut short": lie({"a": F32}, length=20),
    "a header that is no JSON": lie(b"{'a': 1}"),
    "a header that is a list": lie([F32]),
    "a header that is no UTF-8": lie(b'{"\xff": 1}'),
    "a deep header": lie(b"[" * 100_000),
    "a name twice": lie(b'{"a": %b, "a": %b}' % ((json.dumps(F32).encode(),) * 2), bytes(16)),
    "offsets beyond the file": lie({"a": F32 | {"data_offsets": [10**9, 10**9 + 8]}}),
    "an end beyond the file": lie({"a": F32 | {"shape": [2**30], "data_offsets": [0, 2**32]}}),
    "offsets below zero": lie({"a": F32 | {"data_offsets": [-8, 0]}}),
    "offsets backwards": lie({"a": F32 | {"data_offsets": [8, 0]}}),
    "offsets that overlap": lie({"a": F32, "b": F32 | {"data_offsets": [4, 12]}}, bytes(12)),
    "the same offsets": lie({"a": F32, "b": F32}),
    "a hole": lie({"a": F32, "b": F32 | {"data_offsets": [16, 24]}}, bytes(24)),
    "bytes behind the end": lie({"a": F32}, bytes(9)),
    "a dtype too wide": lie({"a": F32 | {"dtype": "F64"}}),
    "a dtype too narrow": lie({"a": F32 | {"dtype": "F16"}}),
    "a dtype unknown": lie({"a": F32 | {"dtype": "F31"}}),
    "a dtype that torch lacks": lie({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}),
    "a shape too large": lie({"a": F32 | {"shape": [3]}}),
    "a shape beyond 64 bits": lie({"a": F32 | {"shape": [2**40, 2**40]}}),
    "a shape below zero": lie({"a": F32 | {"shape": [-2]}}),
    "a shape that is no integer": lie({"a": F32 | {"shape": [2.5]}}),
    "no tensor": lie({}, b""),
}


@pytest.mark.parametrize("name", LIES)
def test_safetensors_with_a_lying_header(tmp_path, name):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(LIES[name])
    refusal(file)

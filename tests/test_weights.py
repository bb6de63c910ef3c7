"""Trained weights: each way to get them, each way in which they can be wrong."""

import hashlib
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from esc50_archive import names_in
from safetensors.torch import save_file
from web import closed_url, serve

from audioml import download
from audioml.config import ConfigError, ModelConfig
from audioml.models import build_model, weights

N_CLASSES = 5


def build(name: str, wanted: object, n_classes: int = N_CLASSES, **settings: object):
    config = ModelConfig(name=name, weights=str(wanted), width=8, **settings)
    return build_model(config, n_classes=n_classes, input_size=(64, 72))


def refusal(name: str, wanted: object, **settings: object) -> str:
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        build(name, wanted, **settings)
    return str(error.value)


def named_by_hash(folder: Path, content: bytes, stem: str = "resnet50") -> Path:
    file = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    file.write_bytes(content)
    return file


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """torch.hub's checkpoint folder, empty; and no proxy for an address where nothing answers."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-50 in torchvision's format, its name with the hash, its weights random."""
    file = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), file)
    return named_by_hash(file.parent, file.read_bytes())


@pytest.fixture
def cnn_file(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    file = tmp_path / "cnn.pt"
    torch.save(build("cnn", "none").state_dict(), file)
    return file


def same(model: torch.nn.Module, state: dict[str, torch.Tensor], *, but: str) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[key], state[key]) for key in state if not key.startswith(but))


def test_torchvisions_weights_are_downloaded_once_and_said(
    resnet_file: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "audioml")
    with serve(resnet_file.read_bytes()) as site:
        url = f"{site.url}/{resnet_file.name}"
        monkeypatch.setattr(weights, "_torchvision_urls", lambda config: {"DEFAULT": url})
        for _ in range(2):
            model = build("resnet50", "auto", channels="repeated")
        assert len(site.asked_ranges) == 1
    assert (hub / resnet_file.name).is_file()
    assert same(model, torch.load(resnet_file, mmap=True), but="fc.")
    assert model.fc.weight.shape == (N_CLASSES, 2048)
    said = f"weights   318 tensors from {hub / resnet_file.name}; the last layer is new"
    assert caplog.messages.count(said) == 2
    assert caplog.messages.count(f"weights   downloading {url}") == 1


def test_a_mirror_and_attention_and_folding(resnet_file: Path) -> None:
    with serve(resnet_file.read_bytes()) as site:
        model = build("resnet50_attention", f"{site.url}/mirror/{resnet_file.name}?raw=true")
    state = torch.load(resnet_file, mmap=True)
    assert same(model, {k: v for k, v in state.items() if k != "conv1.weight"}, but="fc.")
    assert model.conv1.weight.shape == (64, 2, 7, 7)


def test_names_are_torchvisions() -> None:
    names = {
        "resnet50_attention": ("resnet50", ["IMAGENET1K_V1", "IMAGENET1K_V2", "DEFAULT"]),
        "alexnet": ("alexnet", ["IMAGENET1K_V1", "DEFAULT"]),
    }
    for name, (file, expected) in names.items():
        urls = weights._torchvision_urls(ModelConfig(name=name))
        assert list(urls) == expected
        assert all(Path(url).name.startswith(f"{file}-") for url in urls.values())
        assert all(weights._HASH.search(url) for url in urls.values())


@pytest.mark.parametrize("name", ["cnn", "cnn_attention", "ast"])
@pytest.mark.parametrize("wanted", ["IMAGENET1K_V1", "DEFAULT"])
def test_imagenet_weights_are_refused_for_other_networks(name: str, wanted: str) -> None:
    assert f"for model.name={name} torchvision has none" in refusal(name, wanted)


def test_an_unknown_name_is_refused() -> None:
    said = refusal("resnet50", "IMAGENET1K_V3")
    assert "model.weights=IMAGENET1K_V3: no such file" in said
    assert "IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT" in said


def test_without_a_network_the_error_says_where_to_put_the_file(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{closed_url()}/resnet50-11ad3fa6.pth"
    monkeypatch.setattr(weights, "_torchvision_urls", lambda config: {"DEFAULT": url})
    said = refusal("resnet50", "auto")
    for part in (url, str(hub / "resnet50-11ad3fa6.pth"), "model.weights=FILE"):
        assert part in said


def test_an_address_without_a_hash_is_refused() -> None:
    assert "must hold a hash" in refusal("resnet50", "https://127.0.0.1/resnet50.pth")


def test_a_damaged_file_in_the_folder_is_found(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "resnet50-11ad3fa6.pth").write_bytes(b"half")
    said = refusal("resnet50", "IMAGENET1K_V2")
    assert "resnet50-11ad3fa6.pth: damaged" in said
    assert "delete it" in said


@pytest.mark.parametrize("fault", ["wrong hash", "web page"])
def test_a_bad_download_is_refused_and_leaves_nothing(tmp_path: Path, hub: Path, fault: str):
    file = named_by_hash(tmp_path, bytes(range(256)) * 1000)
    with serve(file.read_bytes()) as site:
        if fault == "wrong hash":
            site.body = site.body[:-1] + b"\0"
            expected = "what arrived is not what the name says"
        else:
            site.body, site.content_type = b"<html>Log in</html>", "text/html"
            expected = "answered with a web page"
        said = refusal("resnet50", f"{site.url}/{file.name}")
    assert expected in said
    assert str(hub / file.name) in said
    assert names_in(hub) == []


def test_an_interrupted_download_goes_on(tmp_path: Path, hub: Path) -> None:
    file = named_by_hash(tmp_path, bytes(range(256)) * 1000)
    with serve(file.read_bytes()) as site:
        site.cut_after = 100_000
        assert "100000 of 256000 bytes arrived" in refusal("resnet50", f"{site.url}/{file.name}")
        assert names_in(hub) == [f"{file.name}.part"]
        site.cut_after = None
        assert weights.fetch(f"{site.url}/{file.name}").read_bytes() == site.body
        assert site.asked_ranges == [None, "bytes=100000-"]
    assert names_in(hub) == [file.name]


def test_a_server_that_falls_silent_is_not_waited_for(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    file = named_by_hash(tmp_path, bytes(1000))
    with serve(file.read_bytes()) as site:
        site.cut_after, site.silent_s = 100, 1.0
        assert "download failed (timed out)" in refusal("resnet50", f"{site.url}/{file.name}")
    assert names_in(hub) == [f"{file.name}.part"]


class Marker:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("save", [torch.save, lambda x, file: file.write_bytes(pickle.dumps(x, 2))])
def test_code_in_a_file_is_not_run(tmp_path: Path, save) -> None:
    file, marker = tmp_path / "evil.pth", tmp_path / "ran"
    save({"stem.0.weight": Marker(marker)}, file)
    assert "holds more than tensors, which is never run" in refusal("cnn", file)
    assert not marker.exists()
    if save is not torch.save:
        pickle.loads(file.read_bytes())  # noqa: S301 - to see that the payload works
        assert marker.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", bytes(100), None])
def test_what_is_no_weights_file_is_refused(tmp_path: Path, cnn_file: Path, suffix, content):
    file = tmp_path / f"bad{suffix}"
    if content is None:  # truncated
        if suffix == ".safetensors":
            save_file(torch.load(cnn_file), cnn_file)
        content = cnn_file.read_bytes()[:5000]
    file.write_bytes(content)
    assert f"{file}: " in refusal("cnn", file)


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.zeros(2)], {1: torch.zeros(2)}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "other.pt"
    torch.save(content, file)
    assert "set model.weights" in refusal("cnn", file)


def test_every_kind_of_file_gives_the_same(tmp_path: Path, cnn_file: Path) -> None:
    state = torch.load(cnn_file)
    averaged = {f"module.{key}": 2 * tensor for key, tensor in state.items()}
    kinds = {
        "run.pt": {"model": state, "ema": None, "version": 1},
        "averaged.pt": {"model": {}, "ema": {"n_averaged": torch.tensor(3), **averaged}},
    }
    for name, content in kinds.items():
        torch.save(content, tmp_path / name)
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    for name in (cnn_file.name, "run.pt", "legacy.pth", "a.safetensors"):
        assert same(build("cnn", tmp_path / name, load_head=True), state, but="-"), name
    twice = {key: 2 * tensor for key, tensor in state.items()}
    assert same(build("cnn", tmp_path / "averaged.pt", load_head=True), twice, but="-")


def test_the_head_is_loaded_only_if_asked_for(cnn_file: Path) -> None:
    state = torch.load(cnn_file)
    model = build("cnn", cnn_file)
    assert same(model, state, but="head.")
    assert not torch.equal(model.head[1].weight, state["head.1.weight"])
    assert build("cnn", cnn_file, n_classes=7).head[1].out_features == 7
    said = refusal("cnn", cnn_file, n_classes=7, load_head=True)
    assert "has 5 classes, the data have 7; set model.load_head=false" in said
    assert "model.load_head=true needs weights" in refusal("cnn", "none", load_head=True)


def test_old_files_without_batch_norms_counters_are_taken(tmp_path: Path, cnn_file: Path) -> None:
    state = {k: v for k, v in torch.load(cnn_file).items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")
    assert same(build("cnn", tmp_path / "old.pth"), state, but="head.")


def test_weights_of_another_architecture_are_refused(tmp_path: Path, cnn_file: Path) -> None:
    state = torch.load(cnn_file)
    state["stem.0.weight"] = torch.zeros(9, 1, 5, 5)
    state["more"] = state.pop("stem.1.weight")
    torch.save(state, tmp_path / "other.pt")
    said = refusal("cnn", tmp_path / "other.pt")
    assert "another architecture" in said
    assert "1 missing (first stem.1.weight), 1 unexpected (first more)" in said
    assert "1 of another shape (first stem.0.weight [9, 1, 5, 5] for [8, 1, 5, 5])" in said
    assert "missing (first embed.class_token)" in refusal("ast", cnn_file)


def test_attention_is_new_or_whole(tmp_path: Path, cnn_file: Path) -> None:
    model = build("cnn_attention", cnn_file)
    assert same(model, torch.load(cnn_file), but="head.")
    torch.nn.init.normal_(model.pool.score.weight)
    state = model.state_dict()
    torch.save(state, tmp_path / "whole.pt")
    assert same(build("cnn_attention", tmp_path / "whole.pt"), state, but="head.")
    del state["blocks.0.convolve.5.place.weight"]
    torch.save(state, tmp_path / "part.pt")
    said = refusal("cnn_attention", tmp_path / "part.pt")
    assert "1 missing (first blocks.0.convolve.5.place.weight)" in said
    assert "unexpected" in refusal("cnn", tmp_path / "whole.pt")


def test_a_transformers_positions_fit_another_size(tmp_path: Path) -> None:
    config = ModelConfig(name="ast")
    model = build_model(config, n_classes=N_CLASSES, input_size=(128, 216)).eval()
    torch.save(model.state_dict(), tmp_path / "ast.pt")
    other = build("ast", tmp_path / "ast.pt", load_head=True).eval()
    assert other.embed.positions.shape == (1, 192, 4, 4)
    log_mel = torch.randn(2, 1, 64, 72)
    torch.testing.assert_close(other(log_mel), model(log_mel))

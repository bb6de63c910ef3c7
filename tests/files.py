"""Manifests over files that a test has written."""

from audioml.datasets.manifest import Clip, Manifest


def manifest_of(folder, names):
    """Clips of one class, each file a source of its own."""
    clips = tuple(Clip(path=folder / name, label="a", target=0, source=name) for name in names)
    return Manifest(name="test", root=folder, labels=("a",), clips=clips)

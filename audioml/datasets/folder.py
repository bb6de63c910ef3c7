"""Own data in a folder a class."""

import re
from collections.abc import Iterator
from pathlib import Path

from audioml.datasets.files import FileFinder, list_sounds
from audioml.datasets.manifest import Clip, DataError, Manifest, describe_examples


def read_folder(root: Path, source_pattern: str | None = None) -> Manifest:
    """Read a folder with a folder of sound files, however nested, for each class.

    Args:
        root: The folder.
        source_pattern: A regular expression that finds the recording (for medical sets the
            patient) in a file's path within ``root``, ``"dog/yard12_3.wav"``: what its first group
            matches or, without groups, all that it matches. None takes every file for a recording
            of its own, which the manifest says.

    Returns:
        One clip a file, in the order of their paths; labels are the folders' names in alphabetical
        order.

    Raises:
        DataError: If there are fewer than two classes, sound files beside them, or a name the
            pattern does not find a recording in.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a folder a class in it, set data.root")
    names = [path.relative_to(root).as_posix() for path in list_sounds(root)]
    labels = tuple(sorted({name.partition("/")[0] for name in names if "/" in name}))
    _check_layout(root, names, labels)
    sources = dict(zip(names, find_sources(names, source_pattern), strict=True))
    finder = FileFinder(root)
    clips = []
    for row, name in enumerate(names, start=1):
        label = name.partition("/")[0]
        if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
            raise DataError(f"{root}: {name!r} has control characters in its name; rename it")
        path = finder.find(f"{root}, file {row}", root, name)
        clips.append(
            Clip(
                path=path or root / name,
                label=label,
                target=labels.index(label),
                source=sources[name],
                row=row,
            )
        )
    return Manifest(
        name=f"{root.resolve().name}/",  # never the name of an official set
        root=root,
        labels=labels,
        clips=tuple(clips),
        in_esc50_layout=False,
        has_sources=source_pattern is not None,
    )


def _check_layout(root: Path, names: list[str], labels: tuple[str, ...]) -> None:
    beside = [name for name in names if "/" not in name]
    if beside:
        raise DataError(
            f"{root}: {len(beside)} sound files beside the classes' folders: "
            f"{describe_examples(beside)}; move each into the folder of its class"
        )
    if len(labels) < 2:
        raise DataError(
            f"{root}: expected sound files in at least two folders, one a class, found only of "
            f"{labels[0]!r}; set data.root to the folder that holds the classes' folders"
        )


def find_sources(names: list[str], pattern: str | None) -> Iterator[str]:
    """Find the recording in each name, as ``read_folder`` does.

    Raises:
        DataError: If the pattern is none, or does not find a recording in a name.
    """
    if pattern is None:
        yield from names
        return
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"data.source_pattern={pattern!r} is no regular expression: {error}; mend it"
        ) from error
    found = [compiled.search(name) for name in names]
    sources = [match and match[1 if compiled.groups else 0] for match in found]
    lacking = [name for name, source in zip(names, sources, strict=True) if not source]
    if lacking:
        raise DataError(
            f"data.source_pattern={pattern!r} finds no recording in {len(lacking)} of {len(names)} "
            f"names: {describe_examples(lacking)}; mend it"
        )
    yield from (source for source in sources if source)

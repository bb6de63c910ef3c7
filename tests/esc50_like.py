"""A table with the structure of ESC-50's metadata, and the leak of a split by image."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

N_FOLDS, N_CLASSES, CLIPS_A_CELL = 5, 50, 8
# How many sources give 2, 3, ... clips to one class of one fold; all others give one clip.
N_SOURCES_OF_SIZE = {8: 3, 7: 2, 6: 2, 5: 8, 4: 23, 3: 50, 2: 227}
# The sources that stand in two folds: (source, fold, class, clips).
CROSSING = (
    ("131943", 2, 38, 1),
    ("131943", 3, 37, 1),
    ("134049", 2, 6, 1),
    ("134049", 3, 1, 1),
    ("209698", 4, 37, 1),
    ("209698", 5, 38, 1),
    ("234879", 4, 6, 1),
    ("234879", 5, 1, 2),
)
CROSSING_FOLDS = {"131943": {2, 3}, "134049": {2, 3}, "209698": {4, 5}, "234879": {4, 5}}
VARIANTS = ("orig", "noisy", "pitchUp2", "stretch0.9")


def make_table(seed: int = 0) -> pd.DataFrame:
    """2,000 rows, 8 a class a fold, from 1,524 sources of which 319 give 795 clips."""
    rng = np.random.default_rng(seed)
    room = np.full((N_FOLDS, N_CLASSES), CLIPS_A_CELL)
    rows = list(_place_crossing(room))
    names = (f"{number}" for number in 300_000 + rng.permutation(100_000))
    sizes = [size for size, n in N_SOURCES_OF_SIZE.items() for _ in range(n)]
    sizes += [1] * (room.sum() - sum(sizes))
    for size, source in zip(sizes, names, strict=False):
        cells = np.argwhere(room == room.max() if size > 1 else room > 0)
        fold, target = rng.choice(cells)
        room[fold, target] -= size
        rows += [(fold + 1, target, source, take) for take in "ABCDEFGH"[:size]]
    assert not room.any()
    table = pd.DataFrame(rows, columns=["fold", "target", "src_file", "take"])
    stems = [f"{fold}-{source}-{take}-{target}" for fold, target, source, take in rows]
    table.insert(0, "filename", [f"{stem}.wav" for stem in stems])
    table["category"] = [f"class_{target:02d}" for target in table["target"]]
    table["esc10"] = table["target"] < 10
    return table.sort_values("filename", ignore_index=True)


def split_images(table: pd.DataFrame, val_share: float, seed: int) -> list[pd.DataFrame]:
    """Split four spectrogram images a clip at random: the leak to be found.

    Returns:
        The training and the validation images, columns image and label.
    """
    stems = table["filename"].str.removesuffix(".wav")
    images = pd.concat(
        pd.DataFrame({"image": stems + f"_{variant}.png", "label": table["category"]})
        for variant in VARIANTS
    )
    shuffled = images.sample(frac=1, random_state=seed)
    n_val = round(val_share * len(images))
    return [shuffled.iloc[n_val:], shuffled.iloc[:n_val]]


def _place_crossing(room: np.ndarray) -> Iterator[tuple[int, int, str, str]]:
    for source, fold, target, n_clips in CROSSING:
        room[fold - 1, target] -= n_clips
        yield from ((fold, target, source, take) for take in "AB"[:n_clips])

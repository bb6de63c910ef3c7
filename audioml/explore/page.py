"""What the page shows, made ready for its template: numbers, pictures, sounds, charts."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd

from audioml import __version__
from audioml.config import RunConfig
from audioml.explore.augmentation import Change, describe_settings
from audioml.explore.charts import MEASURES, MOST_DOTS, chart_balance, chart_measure, chart_spectra
from audioml.explore.examples import Example
from audioml.explore.exploration import Exploration
from audioml.explore.figures import plot_change, plot_example, plot_mel_and_log_mel
from audioml.explore.findings import Finding
from audioml.explore.survey import readable
from audioml.pages import audio_uri, picture_uri, render

_MOST_LISTED: Final = 100  # clips of a finding; clips.csv has all
_TITLES: Final = {
    "noise": ("Noise", "white, pink or brown, added to the waveform"),
    "gain": ("Gain", "the whole clip louder or quieter"),
    "mixup": ("Mixup", "two clips added, their labels in the same proportion"),
    "pitch": ("Pitch", "higher or lower at the same tempo"),
    "stretch": ("Stretch", "faster or slower at the same pitch"),
    "filter": ("Filter", "another frequency response, as of a room or microphone"),
    "mask": ("Mask", "a band of frequencies and a stretch of time set to their mean"),
    "shift": ("Shift", "moved in time; what leaves at one end comes in at the other"),
}


def render_page(exploration: Exploration, words: Sequence[str]) -> str:
    """Write the page.

    Args:
        exploration: What it shows.
        words: The command's words, to repeat it.
    """
    config = exploration.input.config
    frontend, usable = exploration.frontend, exploration.survey.usable
    examples = exploration.examples
    mel = plot_mel_and_log_mel(examples, frontend, for_page=True) if examples else None
    return render(
        "explore.html",
        title=f"{readable(exploration.input.manifest.name)}: what is in these sounds",
        name=readable(exploration.input.manifest.name),
        root=readable(str(exploration.input.manifest.root)),
        is_file=exploration.input.is_file,
        tiles=list(_tiles(exploration)),
        findings=[_show_finding(finding, exploration) for finding in exploration.findings],
        gallery=_gallery(exploration),
        n_without=len(exploration.labels) - len({e.row["label"] for e in examples}),
        mel=picture_uri(mel, dpi=90) if mel else None,
        classes=_class_rows(usable, exploration.labels),
        charts=list(_charts(exploration)),
        most_dots=MOST_DOTS if len(usable) > MOST_DOTS else None,
        augmentation=_augmentation(exploration),
        frontend=_describe_frontend(config),
        command=" ".join(["audioml explore", *map(readable, words)]),
        version=__version__,
    )


def _tiles(exploration: Exploration) -> Iterator[tuple[str, str]]:
    """List the numbers at the top."""
    clips, usable = exploration.survey.clips, exploration.survey.usable
    seconds = float(usable["length_s"].sum())
    yield "Clips", f"{len(clips):,}"
    if len(exploration.labels) > 1:
        yield "Classes", str(len(exploration.labels))
    if exploration.input.manifest.has_sources:
        yield "Recordings", f"{clips['source'].nunique():,}"
    yield "Total length", _duration(seconds)
    if len(usable):
        low, high = usable["length_s"].min(), usable["length_s"].max()
        yield "Clip length", f"{low:.2f} s" if low == high else f"{low:.2f} to {high:.2f} s"
        rates = usable["sample_rate"].value_counts()
        yield "Sample rate", ", ".join(f"{rate / 1000:g} kHz" for rate in rates.index[:3])
        yield "Channels", ", ".join(str(n) for n in sorted(usable["channels"].unique()))
    if exploration.input.is_file and len(usable):
        row = usable.iloc[0]
        yield "Peak", f"{row['peak_dbfs']:.1f} dBFS"
        yield "RMS", f"{row['rms_dbfs']:.1f} dBFS"
        yield "Silence", f"{row['silence_share']:.0%}"
        yield "Offset", f"{row['dc']:+.4f}"
    if len(clips) > len(usable):
        yield "Can't be read", f"{len(clips) - len(usable):,}"


def _show_finding(finding: Finding, exploration: Exploration) -> dict[str, Any]:
    """Make a finding's clips ready, in their groups."""
    groups = finding.groups or tuple((clip,) for clip in finding.clips)
    places = [(clip, clip == group[0]) for group in groups for clip in group][:_MOST_LISTED]
    clips = exploration.survey.clips
    return {
        "kind": finding.kind,
        "title": finding.title,
        "meaning": finding.meaning,
        "rows": [_show_row(clips.iloc[clip], starts) for clip, starts in places],
        "n_more": len(finding.clips) - len(places),
        "in_groups": bool(finding.groups),
    }


def _show_row(row: pd.Series, starts: bool) -> dict[str, Any]:
    """Make a clip's line: its file, and either why it is bad or how it is."""
    line = {"path": row["path"], "label": row["label"], "starts": starts}
    if row["reason"]:
        return line | {"facts": row["reason"]}
    return line | {"facts": _facts(row)}


def _facts(row: pd.Series) -> str:
    parts = [f"{row['length_s']:.2f} s"]
    if not row["is_silent"]:
        parts += [f"peak {row['peak_dbfs']:.1f}", f"RMS {row['rms_dbfs']:.1f} dBFS"]
    parts += [f"{row['silence_share']:.0%} silent"]
    parts += [f"fold {row['fold']}"] if pd.notna(row["fold"]) else []
    return ", ".join(parts)


def _gallery(exploration: Exploration) -> list[dict[str, Any]]:
    """Put the examples into their classes."""
    counts = exploration.survey.usable["label"].value_counts()
    by_label: dict[str, list[dict[str, Any]]] = {}
    for example in exploration.examples:
        by_label.setdefault(example.row["label"], []).append(_show_example(example, exploration))
    return [
        {"label": label, "n_clips": int(counts[label]), "examples": shown}
        for label, shown in by_label.items()
    ]


def _show_example(example: Example, exploration: Exploration) -> dict[str, Any]:
    rate = exploration.frontend.sample_rate
    shown_s = len(example.waveform) / rate
    is_cut = float(example.row["length_s"]) > shown_s + 0.01
    return {
        "path": example.row["path"],
        "facts": _facts(example.row),
        "cut": f"the first {shown_s:g} s" if is_cut else "",
        "picture": picture_uri(plot_example(example, exploration.frontend)),
        "audio": audio_uri(example.waveform, rate),
    }


def _class_rows(usable: pd.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Make the table of classes, all of them together last."""
    parts = [(label, usable[usable["label"] == label]) for label in labels]
    parts += [("all", usable)] if len(labels) > 1 else []
    return [
        {
            "label": label,
            "clips": f"{len(part):,}",
            "recordings": f"{part['source'].nunique():,}",
            "total": _duration(float(part["length_s"].sum())),
            "length": _median(part, "length_s", "{:.2f}"),
            "peak": _median(part, "peak_dbfs", "{:.1f}"),
            "rms": _median(part, "rms_dbfs", "{:.1f}"),
            "silence": _median(part, "silence_share", "{:.0%}"),
            "clipped": f"{int(part['is_clipped'].sum()):,}",
        }
        for label, part in parts
    ]


def _median(part: pd.DataFrame, column: str, layout: str) -> str:
    values = part[column].dropna().astype(float)
    return layout.format(values.median()) if len(values) else "none"


def _charts(exploration: Exploration) -> Iterator[dict[str, Any]]:
    """Make the charts that the data have something for."""
    usable, labels = exploration.survey.usable, exploration.labels
    if len(usable) < 2:
        return
    for column, title in MEASURES:
        yield {"part": "levels", "figure": chart_measure(usable, labels, column, title)}
    if len(labels) > 1:
        yield {"part": "balance", "figure": chart_balance(usable, labels)}
    if exploration.examples:
        frequencies = exploration.frontend.frequencies.numpy()
        figure = chart_spectra(exploration.survey.spectra, labels, frequencies)
        yield {"part": "spectra", "figure": figure}


def _augmentation(exploration: Exploration) -> dict[str, Any] | None:
    """Put changes into groups, each with its settings; None if nothing is audible."""
    changes, config = exploration.changes, exploration.input.config.augment
    if not changes:
        return None
    top_db = float(changes[0].level_db.max())
    groups: dict[str, dict[str, Any]] = {}
    for change in changes:
        title, what = _TITLES.get(change.name, (change.name, ""))
        settings = describe_settings(config, change.name) if change.name in _TITLES else ""
        group = {"title": title, "what": what, "settings": settings, "cards": []}
        card = _show_change(change, top_db, exploration)
        groups.setdefault(change.name, group)["cards"].append(card)
    clip, *partner = exploration.demonstrated
    return {
        "clip": clip.row,
        "partner": partner[0].row if partner else None,
        "preset": config.preset,
        "original": groups.pop("original")["cards"][0],
        "together": groups.pop("all", {"cards": []})["cards"],
        "groups": list(groups.values()),
        "off": _list_off(exploration.input.config, groups),
        "extra": ", ".join(str(setting.get("name")) for setting in config.extra),
    }


def _show_change(change: Change, top_db: float, exploration: Exploration) -> dict[str, Any]:
    rate = exploration.frontend.sample_rate
    return {
        "value": change.value,
        "epoch": change.epoch,
        "heard": change.heard,
        "picture": picture_uri(plot_change(change, top_db, exploration.frontend)),
        "audio": None if change.waveform is None else audio_uri(change.waveform, rate),
    }


def _list_off(config: RunConfig, groups: dict[str, Any]) -> list[str]:
    """List the augmentations that were not shown."""
    if config.augment.preset != "ranges":
        return []
    return [title for name, (title, _) in _TITLES.items() if name not in groups]


def _describe_frontend(config: RunConfig) -> str:
    f, rate = config.frontend, config.audio.sample_rate
    window = f"windows {f.windows}" if f.windows else f"window {f.win_length}"
    top = f.f_max or rate / 2
    return (
        f"{rate:,} Hz mono, {f.transform} of {f.n_mels} bands from {f.f_min:g} to {top:g} Hz, "
        f"n_fft {f.n_fft}, {window}, "
        f"hop {f.hop_length} samples ({1000 * f.hop_length / rate:.1f} ms), "
        f"floor {f.floor_db:g} dB"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2f} s"

"""What a model is trained on: the first batch, to be looked at and listened to."""

import torch
from matplotlib.figure import Figure

from audioml import plots
from audioml.loader import Batch
from audioml.preparation import Experiment
from audioml.runs import RunFolder
from audioml.tracking import Tracker

_N_SHOWN = 8  # log-mels in train_batch.png
_N_HEARD = 4  # clips in TensorBoard


def show_batch(experiment: Experiment, folder: RunFolder, tracker: Tracker) -> None:
    """Keep the first log-mels as the model sees them, and let some of their clips be heard."""
    batch = next(experiment.loaders["train"].epoch(0))
    file = folder.write_figure("train_batch.png", _plot_batch(experiment, batch))
    tracker.log_picture("train_batch", file, 0)
    clip_index = batch.clip_index[:_N_HEARD].cpu()
    waveforms = experiment.store.gather(clip_index, torch.zeros_like(clip_index))
    for index, waveform in zip(clip_index.tolist(), waveforms, strict=True):
        clip = experiment.manifest.clips[index]
        tag = f"clip/{clip.label}/{clip.path.stem}"
        tracker.log_clip(tag, waveform, experiment.config.audio.sample_rate)


def _plot_batch(experiment: Experiment, batch: Batch) -> Figure:
    """Draw the first log-mels of a training batch with their labels."""
    labels = experiment.manifest.labels
    titles = []
    for target in batch.target[:_N_SHOWN].cpu():
        shares = [(float(share), labels[n]) for n, share in enumerate(target) if share > 0.005]
        is_mixed = any(share < 0.995 for share, _ in shares)
        words = [
            f"{share:.0%} {label}" if is_mixed else label
            for share, label in sorted(shares, reverse=True)
        ]
        titles.append(" + ".join(words))
    frontend, shown = experiment.frontend, batch.input[:_N_SHOWN, 0]
    log_mel = frontend(shown) if frontend.trainable else shown
    return plots.plot_log_mels(
        log_mel.detach().float().cpu().numpy(),
        titles,
        hop_s=frontend.hop_length / experiment.config.audio.sample_rate,
        mel_frequencies=frontend.frequencies.numpy(),
    )

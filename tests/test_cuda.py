"""The Triton kernels against plain torch: on CUDA, or else in Triton's interpreter."""

import weakref

import pytest
import torch
from kernel_device import KERNEL_DEVICE, can_run_kernels

from audioml.frontend import LogMel
from audioml.frontend import functional as F
from audioml.frontend.recipe import Reading, Recipe

pytestmark = pytest.mark.skipif(not can_run_kernels(), reason="no Triton that could run here")

RATE, N_TIME = 8000, 4000


def make_reading(lengths, starts, *, n_time=N_TIME, wrap=False, seed=0, level=3000):
    """Clips of these lengths [voice][batch], read from these starts of their circles."""
    g = torch.Generator().manual_seed(seed)
    length = torch.tensor(lengths)
    period = length if wrap else length.clamp(min=n_time)
    samples = (level * torch.randn(int(length.sum()), generator=g)).clamp(-32_768, 32_767)
    begin = (length.flatten().cumsum(0) - length.flatten()).view(length.shape)
    return Reading(samples.to(torch.int16), begin, length, period, torch.tensor(starts) % period)


def make_recipe(n_voices, n_batch, *, n_time=N_TIME, seed=1, **fields):
    g = torch.Generator().manual_seed(seed)
    gain = torch.rand(n_voices, n_batch, generator=g) / 32_768
    noise = torch.randn(2 * n_time, generator=g)
    start = torch.randint(0, n_time, (n_batch,), generator=g)
    noisy = {"noise": noise, "noise_gain": torch.linspace(0, 0.1, n_batch), "noise_start": start}
    return Recipe(gain=gain, **noisy | fields)


def to_device(reading):
    fields = (reading.samples, reading.begin, reading.length, reading.period, reading.start)
    return Reading(*(field.to(KERNEL_DEVICE) for field in fields))


def render(frontend, reading, recipe, n_time=N_TIME):
    """The kernels' log-mels and those of plain torch, both on the CPU."""
    waveform = F.read_waveforms(reading, recipe, n_time)
    expected = frontend.reference(waveform, recipe.rate, recipe.semitones, recipe.response)
    if recipe.mask is not None:
        expected = F.mask_bands(expected, recipe.mask)
    frontend.kind = "triton"
    on_device = frontend.to(KERNEL_DEVICE)
    log_mel = on_device.render(to_device(reading), recipe.to(KERNEL_DEVICE), n_time)
    return log_mel.cpu(), expected


def assert_equal(log_mel, expected, *, peak_db=60.0):
    """At most 1e-3 of the power and 0.05 dB apart, down to 60 dB below the peak."""
    assert log_mel.shape == expected.shape
    heard = expected > max(float(expected.max()) - peak_db, -99.0)
    difference_db = (log_mel - expected).abs()
    assert difference_db[heard].max() < 0.0043  # 1e-3 of the power
    assert difference_db.max() < 0.05


SETTINGS = [
    {"n_fft": 512, "win_length": 512, "hop_length": 128, "n_mels": 40},
    {"n_fft": 300, "win_length": 255, "hop_length": 101, "n_mels": 33},
    {"n_fft": 255, "win_length": 255, "hop_length": 255, "n_mels": 16},
    {"n_fft": 1500, "win_length": 1024, "hop_length": 700, "n_mels": 128, "f_min": 50.0},
    {"n_fft": 16, "win_length": 16, "hop_length": 16, "n_mels": 1, "f_max": 3000.0},
    {"n_fft": 256, "win_length": 256, "hop_length": 200, "mel_scale": "htk", "mel_norm": "none"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_kernels_equal_plain_torch(settings):
    reading = make_reading([[4000, 1, 2999], [6000, 4000, 700]], [[0, 3999, 17], [5999, -1, 123]])
    recipe = make_recipe(
        2,
        3,
        rate=torch.tensor([0.9, 1.0, 1.1]),
        semitones=torch.tensor([-2.0, 0.0, 1.75]),
    )
    frontend = LogMel(sample_rate=RATE, max_semitones=2, **settings)
    assert_equal(*render(frontend, reading, recipe))


@pytest.mark.parametrize("n_time", [1, 2, 511, 513])
def test_waveforms_shorter_than_a_frame(n_time):
    frontend = LogMel(sample_rate=RATE, n_fft=512, win_length=512, hop_length=128, n_mels=24)
    reading = make_reading([[1, n_time]], [[0, n_time - 1]], n_time=n_time)
    assert_equal(*render(frontend, reading, make_recipe(1, 2, n_time=n_time), n_time))


@pytest.mark.parametrize("rate", [0.25, 0.333, 1.5, 4.0])
def test_extreme_rates(rate):
    frontend = LogMel(sample_rate=RATE, n_fft=256, win_length=256, hop_length=81, n_mels=24)
    reading = make_reading([[4000]], [[1234]])
    recipe = make_recipe(1, 1, rate=torch.tensor([rate]))
    assert_equal(*render(frontend, reading, recipe))


@pytest.mark.parametrize("semitones", [-12.0, -0.15, -0.05, 0.25, 0.45, 11.97, 12.0, 40.0])
def test_extreme_pitches_and_ties(semitones):
    frontend = LogMel(
        sample_rate=RATE, n_fft=512, win_length=512, hop_length=256, n_mels=64, max_semitones=12
    )
    reading = make_reading([[4000]], [[0]])
    recipe = make_recipe(1, 1, semitones=torch.tensor([semitones]))
    assert_equal(*render(frontend, reading, recipe))


def test_short_clips_that_repeat():
    frontend = LogMel(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=24)
    # On both sides of the 256 samples that a program makes.
    lengths, starts = [7, 1, 255, 256, 257, 900], [3, 0, 254, 255, 256, 899]
    reading = make_reading([lengths], [starts], wrap=True)
    assert_equal(*render(frontend, reading, make_recipe(1, 6)))


def test_a_part_s_frames_are_gone_before_the_next_ones_are_made(monkeypatch):
    from audioml.frontend import cuda

    make_frames, made = cuda.make_frames, []

    def noted(*arguments):
        assert not any(frames() is not None for frames in made)
        frames = make_frames(*arguments)
        made.append(weakref.ref(frames))
        return frames

    monkeypatch.setattr(cuda, "make_frames", noted)
    monkeypatch.setattr(cuda, "_SCRATCH_BYTES", 1)
    frontend = LogMel(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=24)
    reading = make_reading([[4000, 900, 1]], [[0, 1, 0]])
    assert_equal(*render(frontend, reading, make_recipe(1, 3)))
    assert len(made) == 3


def test_waveforms_in_float32():
    frontend = LogMel(
        sample_rate=RATE, n_fft=256, win_length=256, hop_length=100, n_mels=24, max_semitones=2
    )
    waveform = 0.1 * torch.randn(3, N_TIME, generator=torch.Generator().manual_seed(0))
    changes = torch.tensor([0.9, 1.0, 1.1]), torch.tensor([2.0, 0.0, -1.0])
    expected = frontend.reference(waveform, *changes)
    frontend.kind = "triton"
    log_mel = frontend.to(KERNEL_DEVICE)(*(x.to(KERNEL_DEVICE) for x in (waveform, *changes)))
    assert_equal(log_mel.cpu(), expected)


def test_silence_is_at_the_floor():
    frontend = LogMel(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=24)
    reading = make_reading([[4000, 10]], [[0, 0]], level=0)
    log_mel, _ = render(frontend, reading, make_recipe(1, 2, noise=None))
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, -100.0))


def test_responses():
    frontend = LogMel(
        sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=21, max_semitones=2
    )
    reading = make_reading([[4000, 3000, 4000]], [[0, 1, 2]])
    response = torch.linspace(0.1, 10, 21 * 3).view(21, 3)
    recipe = make_recipe(1, 3, response=response, semitones=torch.tensor([0.0, 1.0, -2.0]))
    assert_equal(*render(frontend, reading, recipe))


def test_masks_and_statistics():
    frontend = LogMel(sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=24)
    frontend.set_statistics(torch.linspace(-40, -10, 24), torch.linspace(0.5, 9, 24))
    reading = make_reading([[4000, 3000, 4000]], [[0, 1, 2]])
    mask = torch.tensor([[0, 5, 24], [0, 9, 24], [3, 0, 31], [3, 32, 32]])
    log_mel, expected = render(frontend, reading, make_recipe(1, 3, mask=mask))
    assert_equal(log_mel, expected, peak_db=torch.inf)
    assert (log_mel[1] == 0).all()
    assert torch.equal(log_mel == 0, expected == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_results_are_rounded_ones(dtype):
    frontend = LogMel(
        sample_rate=RATE, n_fft=256, win_length=256, hop_length=128, n_mels=24, dtype=dtype
    )
    reading, recipe = make_reading([[4000]], [[0]]), make_recipe(1, 1)
    log_mel, expected = render(frontend, reading, recipe)
    assert log_mel.dtype == expected.dtype == dtype
    assert (log_mel.float() - expected.float()).abs().max() <= 100 * torch.finfo(dtype).eps


def test_large_batches_go_in_parts_of_bounded_memory(monkeypatch):
    from audioml.frontend import cuda

    settings = {"n_fft": 256, "win_length": 256, "hop_length": 128, "n_mels": 24}
    reading = make_reading([[4000] * 5], [list(range(5))])
    recipe = make_recipe(1, 5, rate=torch.linspace(0.9, 1.1, 5))
    whole, _ = render(LogMel(sample_rate=RATE, **settings), reading, recipe)
    monkeypatch.setattr(cuda, "_SCRATCH_BYTES", 2 * 32 * 256 * 4)
    parts, _ = render(LogMel(sample_rate=RATE, **settings), reading, recipe)
    assert torch.equal(parts, whole)


@pytest.mark.gpu
def test_a_batch_can_be_captured_in_a_cuda_graph():
    frontend = LogMel(sample_rate=RATE, max_semitones=2, kind="triton").to(KERNEL_DEVICE)
    reading = to_device(make_reading([[4000, 3000]], [[0, 5]]))
    recipe = make_recipe(1, 2, rate=torch.tensor([0.9, 1.1])).to(KERNEL_DEVICE)
    expected = frontend.render(reading, recipe, N_TIME)  # compiles, and makes cuFFT's plan
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = frontend.render(reading, recipe, N_TIME)
    captured.zero_()
    graph.replay()
    torch.testing.assert_close(captured, expected)


@pytest.mark.gpu
def test_memory_is_flat_and_nothing_waits_over_1000_random_batches():
    frontend = LogMel(sample_rate=RATE, max_semitones=2, kind="triton").to(KERNEL_DEVICE)
    reading = to_device(make_reading([[4000] * 8], [list(range(8))]))
    recipes = []
    for seed in range(1000):
        g = torch.Generator().manual_seed(seed)
        rate, semitones = 0.9 + 0.2 * torch.rand(8, generator=g), 4 * torch.rand(8, generator=g) - 2
        recipe = make_recipe(1, 8, seed=seed, rate=rate, semitones=semitones)
        recipes.append(recipe.to(KERNEL_DEVICE))
    for recipe in recipes[:10]:
        frontend.render(reading, recipe, N_TIME)
    before = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for recipe in recipes:
            frontend.render(reading, recipe, N_TIME)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (torch.cuda.memory_reserved(), torch.cuda.memory_allocated()) == before

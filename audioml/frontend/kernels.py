"""Triton kernels: from int16 samples to windowed frames, and from spectra to log-mels.

``cuda.py`` launches them, with cuFFT between them. The functions in ``functional.py`` say the same
in plain torch, and the tests hold the kernels to them.
"""

import triton
import triton.language as tl

# What is given a clip is read as scalars: whether its address is aligned makes no difference, and
# strides follow the number of clips: a kernel for each would be compiled in the middle of an epoch.
_CLIP_FIELDS = ("begin", "length", "period", "start", "gain", "noise_gain", "noise_start", "rate")


@triton.jit(
    do_not_specialize=("reading_stride", "gain_stride"),
    do_not_specialize_on_alignment=_CLIP_FIELDS,
)
def frames_kernel(
    frames,  # [batch, n_frames, n_fft] float32, out
    samples,  # [sample] int16, or float32
    begin,  # [voice, batch] int64: see Reading and Recipe
    length,
    period,
    start,
    gain,  # [voice, batch] float32
    reading_stride,  # between the voices of begin, length, period and start
    gain_stride,
    noise,
    noise_gain,
    noise_start,
    rate,
    window,  # [n_fft] float32
    n_time,
    n_frames,
    n_fft,
    hop_length,
    N_VOICES: tl.constexpr,
    HAS_NOISE: tl.constexpr,
    HAS_RATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Read, mix and window a piece of one frame: program (clip * n_frames + frame, piece)."""
    frame = tl.program_id(0) % n_frames
    clip = tl.program_id(0) // n_frames
    lane = tl.arange(0, BLOCK)
    place = tl.program_id(1) * BLOCK + lane
    is_inside = place < n_fft
    first = frame * hop_length
    if HAS_RATE:  # as functional.frame_starts rounds
        stretched = first.to(tl.float64) * tl.load(rate + clip).to(tl.float64)
        first = tl.floor(stretched + 0.5).to(tl.int32)
    begin_time = first - n_fft // 2 + tl.program_id(1) * BLOCK
    time = begin_time + lane
    is_heard = is_inside & (time >= 0) & (time < n_time)
    wave = tl.zeros([BLOCK], tl.float32)
    for voice in tl.static_range(N_VOICES):
        row = voice * reading_stride + clip
        amplitude = tl.load(gain + voice * gain_stride + clip)
        if amplitude > 0:
            circle = tl.load(period + row).to(tl.int32)
            # Where the piece begins on the circle is a remainder of scalars. From there on samples
            # come around once at most, if the circle is at least as long as the piece.
            turned = (tl.load(start + row).to(tl.int32) + begin_time) % circle
            position = tl.where(turned < 0, turned + circle, turned) + lane
            if circle < BLOCK:
                position %= circle
            else:
                position -= tl.where(position >= circle, circle, 0)
            is_sound = is_heard & (position < tl.load(length + row).to(tl.int32))
            sound = tl.load(samples + tl.load(begin + row) + position, mask=is_sound, other=0)
            wave += amplitude * sound.to(tl.float32)
    if HAS_NOISE:
        amplitude = tl.load(noise_gain + clip)
        if amplitude > 0:
            piece = noise + tl.load(noise_start + clip)
            wave += amplitude * tl.load(piece + time, mask=is_heard, other=0.0)
    wave *= tl.load(window + place, mask=is_inside, other=0.0)
    tl.store(frames + tl.program_id(0).to(tl.int64) * n_fft + place, wave, mask=is_inside)


@triton.jit(
    do_not_specialize=("response_stride", "mask_stride"),
    do_not_specialize_on_alignment=("semitones", "response", "mask"),
)
def log_mel_kernel(
    log_mel,  # [batch, n_mels, n_frames], out
    parts,  # [batch, n_frames, 2 * n_freqs] float32: real and imaginary in turn
    edges,  # [n_mels + 2] float32: see LogMel.edges
    height,  # [n_mels] float32: peak of each filter
    mean_db,  # [n_mels] float32
    std_db,
    semitones,  # [batch] float32
    response,  # [n_mels, batch] float32
    response_stride,
    mask,  # [4, batch] int64
    mask_stride,
    floor_power,
    n_steps,
    n_frames,
    n_freqs,
    n_mels,
    STEPS_A_SEMITONE: tl.constexpr,
    HAS_PITCH: tl.constexpr,
    HAS_RESPONSE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
    FRAMES: tl.constexpr,
    MELS: tl.constexpr,
    FREQS: tl.constexpr,
):
    """Make some mel bands of some frames: program (clip, block of frames, block of bands)."""
    clip = tl.program_id(0)
    frame = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)
    first_mel = tl.program_id(2) * MELS
    mel = first_mel + tl.arange(0, MELS)
    is_mel = mel < n_mels
    ratio = 1.0
    if HAS_PITCH:  # as LogMel rounds: in float64 the product is exact, fused with the sum or not
        exact = tl.load(semitones + clip).to(tl.float64) * STEPS_A_SEMITONE
        step = tl.floor(exact + 0.5).to(tl.float32)
        step = tl.minimum(tl.maximum(step, -n_steps), n_steps)
        ratio = tl.exp2(step * (1.0 / (12 * STEPS_A_SEMITONE)))
    low = tl.load(edges + mel, mask=is_mel, other=0.0)[None, :]
    peak = tl.load(edges + mel + 1, mask=is_mel, other=1.0)[None, :]
    high = tl.load(edges + mel + 2, mask=is_mel, other=2.0)[None, :]
    rising, falling = 1.0 / (peak - low), 1.0 / (high - peak)
    # Bin k is heard at ratio * k: only these bins meet any of the filters.
    last_mel = tl.minimum(first_mel + MELS, n_mels)
    first_freq = tl.floor(tl.load(edges + first_mel) / ratio).to(tl.int32)
    end_freq = tl.minimum(tl.floor(tl.load(edges + last_mel + 1) / ratio).to(tl.int32) + 1, n_freqs)
    row = parts + (clip.to(tl.int64) * n_frames + frame)[:, None] * (2 * n_freqs)
    is_frame = (frame < n_frames)[:, None]
    power = tl.zeros([FRAMES, MELS], tl.float32)
    for freq in range(first_freq, end_freq, FREQS):
        part = 2 * freq + tl.arange(0, 2 * FREQS)
        spectrum = tl.load(
            row + part[None, :], mask=is_frame & (part < 2 * end_freq)[None, :], other=0.0
        )
        heard = ((part // 2).to(tl.float32) * ratio)[:, None]
        weight = tl.maximum(tl.minimum((heard - low) * rising, (high - heard) * falling), 0.0)
        power = tl.dot(spectrum * spectrum, weight, acc=power, input_precision=PRECISION)
    power *= tl.load(height + mel, mask=is_mel, other=0.0)[None, :]
    if HAS_RESPONSE:
        power *= tl.load(response + mel * response_stride + clip, mask=is_mel, other=1.0)[None, :]
    level_db = tl.log2(tl.maximum(power, floor_power)) * 3.0102999566398120
    mean = tl.load(mean_db + mel, mask=is_mel, other=0.0)[None, :]
    deviation = tl.load(std_db + mel, mask=is_mel, other=1.0)[None, :]
    level = (level_db - mean) / deviation
    if HAS_MASK:
        bounds = mask + clip
        is_masked = (mel >= tl.load(bounds)) & (mel < tl.load(bounds + mask_stride))
        is_hidden = (frame >= tl.load(bounds + 2 * mask_stride)) & (
            frame < tl.load(bounds + 3 * mask_stride)
        )
        level = tl.where(is_masked[None, :] | is_hidden[:, None], 0.0, level)
    out = log_mel + (clip.to(tl.int64) * n_mels + mel)[None, :] * n_frames + frame[:, None]
    tl.store(out, level.to(log_mel.dtype.element_ty), mask=is_frame & is_mel[None, :])

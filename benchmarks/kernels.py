"""What the Triton kernels take of a GPU: registers, shared memory, spills. No GPU is needed.

``python benchmarks/kernels.py`` compiles them for the GPUs named here and prints a Markdown table.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # the interpreter, which some tests use, compiles nothing

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel
from triton.runtime import JITFunction

from audioml.frontend.cuda import FRAMES, FREQS, MELS, PIECE
from audioml.frontend.kernels import frames_kernel, log_mel_kernel

CAPABILITIES = (80, 90)
FRAMES_TYPES = {
    "frames samples": "*fp32 *i16",
    "begin length period start": "*i64 *i64 *i64 *i64",
    "gain reading_stride gain_stride": "*fp32 i32 i32",
    "noise noise_gain noise_start rate window": "*fp32 *fp32 *i64 *fp32 *fp32",
    "n_time n_frames n_fft hop_length": "i32 i32 i32 i32",
}
LOG_MEL_TYPES = {
    "log_mel parts edges height mean_db std_db": "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32",
    "semitones response response_stride": "*fp32 *fp32 i32",
    "mask mask_stride floor_power": "*i64 i32 fp32",
    "n_steps n_frames n_freqs n_mels": "i32 i32 i32 i32",
}
FRAMES_CONSTANTS = {"HAS_NOISE": True, "HAS_RATE": True, "BLOCK": PIECE}
LOG_MEL_CONSTANTS = {
    "STEPS_A_SEMITONE": 10,
    "HAS_PITCH": True,
    "HAS_RESPONSE": True,
    "HAS_MASK": True,
    "PRECISION": "tf32x3",
    "FRAMES": FRAMES,
    "MELS": MELS,
    "FREQS": FREQS,
}
# Of the settings that matter, these are multiples of 16 by default, and Triton makes use of it.
ALIGNED = {"frames", "samples", "noise", "window", "n_fft", "hop_length", "log_mel", "parts"}
ALIGNED |= {"edges", "height", "n_mels"}


def compile_kernel(
    kernel: JITFunction, types: dict[str, str], constants: dict[str, object], capability: int
) -> CompiledKernel:
    """Compile a kernel for a compute capability; ``types`` maps names to types, each spaced."""
    signature = dict.fromkeys(constants, "constexpr")
    for names, kinds in types.items():
        signature |= dict(zip(names.split(), kinds.split(), strict=True))
    place = {name: (kernel.arg_names.index(name),) for name in signature}
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in kernel.arg_names},
        constexprs={place[name]: value for name, value in constants.items()},
        attrs={place[n]: [["tt.divisibility", 16]] for n in ALIGNED & signature.keys()},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


def read_usage(kernel: CompiledKernel) -> dict[str, int]:
    """Ask cuobjdump, which comes with Triton, for registers (REG) and spills in bytes (STACK)."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [cuobjdump, "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}


def main() -> None:
    """Print the table."""
    print("| kernel | GPU | variant | registers | shared [byte] | spilled [byte] |")
    print("|---|---|---|---|---|---|")
    for capability in CAPABILITIES:
        variants = [
            (frames_kernel, FRAMES_TYPES, FRAMES_CONSTANTS | {"N_VOICES": n}, f"{n} voices")
            for n in (1, 2)
        ]
        variants.append((log_mel_kernel, LOG_MEL_TYPES, LOG_MEL_CONSTANTS, "float32"))
        for kernel, types, constants, variant in variants:
            compiled = compile_kernel(kernel, types, constants, capability)
            usage = read_usage(compiled)
            print(
                f"| {kernel.__name__} | sm_{capability} | {variant} | {usage['REG']} "
                f"| {compiled.metadata.shared} | {usage['STACK'] + usage['LOCAL']} |"
            )


if __name__ == "__main__":
    main()

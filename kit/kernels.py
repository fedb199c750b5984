"""Which kernels TensorFlow calculates with on a processor: oneDNN's or its own.

The choice is made when TensorFlow is imported and changes the last bits of every number, so it is
part of what a run is keyed by. Measured on two cores without AVX-512, where TensorFlow leaves
oneDNN off: a training step of the Br35H network at 240 pixels takes 1.8 to 3.4 times as long
without it as with it, at 32 pixels as long; searches of many small graphs gain nothing.
"""

import os
import platform
import sys
from pathlib import Path

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
PROFILES = ("cpu", "paper", "rehearsal")  # whose images are large enough to gain
# with one of these TensorFlow switches oneDNN on by itself (on Linux, x86)
FEATURES = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def onednn() -> bool:
    """Whether TensorFlow calculates with oneDNN in this process; TensorFlow is not imported for it.

    The variable is read as TensorFlow reads it; where it is not set the processor decides.
    """
    asked = os.environ.get(VARIABLE, "").strip().lower()
    if asked in ("1", "true"):
        return True
    return False if asked in ("0", "false") else _by_default()


def _by_default() -> bool:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine() in ("aarch64", "arm64") and sys.platform == "linux"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not FEATURES.isdisjoint(flags.split())


def chosen(profile: str) -> dict[str, str]:
    """What a run of a profile adds to its environment: oneDNN where it pays.

    Nothing where the user has set the variable, and nothing for profiles that would not gain.
    """
    return {VARIABLE: "1"} if profile in PROFILES and not os.environ.get(VARIABLE) else {}


def keyed(config: dict) -> dict:
    """A configuration with what the kernels add to a run's key: an entry where oneDNN is on.

    Runs without it keep the key that they had before there was a choice.
    """
    return {**config, "onednn": True} if onednn() else config

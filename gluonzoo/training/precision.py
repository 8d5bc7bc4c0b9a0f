"""Mixed precision: bfloat16 on the CPU where it was measured to pay, float16 with loss scaling on GPUs."""
import numpy as np

from ..errors import UserError

__all__ = ["LossScaler", "check", "begin"]

#: Networks whose training was measured with bfloat16 against float32 on a CPU with AVX-512 BF16 instructions, 2 threads,
#: images a second (float32, bfloat16). Only these are known; the rule is to ask, not to guess.
MEASURED = {"resnet50_v1": (12.2, 15.5), "mobilenet_v2_1_0": (16.1, 6.6)}

#: What the processor must have: without these instructions bfloat16 is emulated.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


class LossScaler:
    """The factor by which losses are multiplied, so that small gradients do not vanish in float16; it finds its size itself.

    After `interval` updates in a row without overflow it grows by `growth`; at an overflow the update is left out and it shrinks
    by `backoff`. Powers of two, so that scaling and unscaling round nothing.

    Source: Micikevicius et al., "Mixed Precision Training", 2018, section 3.2, for the idea; the numbers are the usual ones.

    Args: scale: the first factor; least, most: its bounds.
    Attributes: scale; clean: updates since the last change.
    """

    def __init__(self, scale=2.0 ** 16, growth=2.0, backoff=0.5, interval=2000, least=1.0, most=2.0 ** 24):
        if not (0 < least <= scale <= most and growth > 1 and 0 < backoff < 1 and interval >= 1):
            raise UserError(f"loss scale {scale} in [{least}, {most}], growth {growth}, backoff {backoff}, interval {interval}; "
                            "expected 0 < least <= scale <= most, growth above 1, backoff between 0 and 1, interval from 1")
        self.scale, self.clean = float(scale), 0
        self._growth, self._backoff, self._interval, self._least, self._most = growth, backoff, interval, least, most

    def update(self, finite):
        """Take in whether the last update's gradients were finite."""
        self.clean = self.clean + 1 if finite else 0
        if not finite:
            self.scale = max(self.scale * self._backoff, self._least)
        elif self.clean == self._interval:
            self.scale, self.clean = min(self.scale * self._growth, self._most), 0

    def state(self):
        """What `load` takes: (2,) float64."""
        return np.array([self.scale, self.clean])

    def load(self, state):
        """Go on from what `state` returned."""
        self.scale, self.clean = float(state[0]), int(state[1])


def _instructions():
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return [name for name in _INSTRUCTIONS if name in flags.split()]


def check(precision, model, gpus, instructions=None):
    """Raise UserError where a precision does not work or does not pay; the message says why.

    Args: precision: "float32", "bf16", "fp16"; model: a registered network's name; gpus: whether training runs on GPUs;
        instructions: of the processor; default: asked of the system.
    """
    if precision == "fp16" and not gpus:
        raise UserError("--precision fp16 is for GPUs (--gpus): MXNet has no float16 convolution on CPUs")
    if precision != "bf16":
        return
    if gpus:
        raise UserError("--precision bf16 is for CPUs; the GPUs that this MXNet serves train in fp16")
    instructions = _instructions() if instructions is None else instructions
    if not instructions:
        raise UserError(f"--precision bf16: this processor has none of {', '.join(_INSTRUCTIONS)}; bfloat16 would be emulated, "
                        "slower than float32")
    if model not in MEASURED:
        paying = [name for name, (full, half) in MEASURED.items() if half > full]
        raise UserError(f"--precision bf16 was not measured for {model}, and it slows some networks down; it pays for "
                        f"{', '.join(paying)}")
    full, half = MEASURED[model]
    if half <= full:
        raise UserError(f"--precision bf16 does not pay for {model}: it trained {half} images a second with it, {full} without")


def begin(precision):
    """Switch this process over to a precision, before any network is built. bf16 holds until the process ends."""
    if precision == "bf16":
        from mxnet.contrib import amp
        amp.init("bfloat16")

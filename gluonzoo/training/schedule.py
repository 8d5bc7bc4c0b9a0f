"""Learning rates as pure functions of the update's number, so that a resumed run continues exactly."""
import math

__all__ = ["learning_rate"]


def learning_rate(step, total_steps, peak, schedule="cosine", milestones=(0.5, 0.75), warmup_steps=0):
    """The learning rate of one update.

    Args:
        step: number of the update from 0.
        total_steps: updates of the whole run.
        peak: the rate after warm-up.
        schedule: "constant"; "step": divided by ten at each milestone (a fraction of the run); "cosine": half a cosine
            from peak to zero over the updates after warm-up (Loshchilov and Hutter, SGDR, 2017, without restarts).
        warmup_steps: updates over which the rate rises linearly to peak (Goyal et al., 2017).
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak * 0.1 ** sum(step >= milestone * total_steps for milestone in milestones)
    if schedule == "cosine":
        rest = max(1, total_steps - warmup_steps)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / rest)))
    raise ValueError(f"schedule is {schedule!r}; expected constant, step or cosine")

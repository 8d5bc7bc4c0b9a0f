"""Learning rate and momentum as pure functions of the update's number, so that a resumed run continues exactly.

One schedule also looks back: "plateau" counts reductions in the history of validations, which every worker shares and every
checkpoint holds (`plateau_reductions`).
"""
import math

__all__ = ["SCHEDULES", "learning_rate", "one_cycle_momentum", "plateau_reductions"]

SCHEDULES = ("constant", "step", "plateau", "exponential", "poly", "cosine", "one_cycle")

#: One-cycle's tail ends at this share of the rate at which the cycle begins and ends: "several orders of magnitude" (Smith).
TAIL = 1e-3


def learning_rate(step, total_steps, peak, schedule="cosine", milestones=(0.5, 0.75), warmup_steps=0, *, rates=(), decay=0.1,
                  decay_steps=1, power=1.0, reductions=0, cycle_share=0.45, cycle_divisor=10.0, hold=1):
    """The learning rate of one update.

    Args:
        step: number of the update from 0.
        total_steps: updates of the whole run.
        peak: the rate after warm-up.
        schedule: "constant"; "step": multiplied by decay at each milestone (a fraction of the run), or peak times that
            milestone's of rates; "plateau": decay to the power of reductions; "exponential": multiplied by decay after every
            decay_steps updates; "poly": (1 - share of the run after warm-up) ** power, linear with power 1; "cosine": half a
            cosine from peak to zero over the updates after warm-up (Loshchilov and Hutter, SGDR, 2017, without restarts);
            "one_cycle": in equal parts of cycle_share of the run linearly from peak / cycle_divisor up to peak and down again,
            then linearly to a thousandth of where it began (Smith, "A disciplined approach to neural network
            hyper-parameters", 2018, section 3).
        warmup_steps: updates over which the rate rises linearly to peak (Goyal et al., 2017); none in one_cycle.
        hold: after warm-up the rate changes after every so many updates only: those of an epoch, for rates by epoch.
    Raises: ValueError for another schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    step = max(step // hold * hold, warmup_steps) if hold > 1 else step
    if schedule == "step":
        passed = sum(step >= milestone * total_steps for milestone in milestones)
        if rates and passed:
            return peak * rates[passed - 1]
        return peak * decay ** passed
    if schedule == "plateau":
        return peak * decay ** reductions
    if schedule == "exponential":
        return peak * decay ** int(step / decay_steps)
    share = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "poly":
        return peak * (1 - share) ** power
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "one_cycle":
        low = peak / cycle_divisor
        up = _cycle(share, cycle_share)
        if up is not None:
            return low + (peak - low) * up
        left = (1 - share) / (1 - 2 * cycle_share)
        return low * (TAIL + (1 - TAIL) * left)
    return peak


def _cycle(share, cycle_share):
    """How far up the cycle is, 0 to 1; None in the tail."""
    if share < cycle_share:
        return share / cycle_share
    return (2 * cycle_share - share) / cycle_share if share <= 2 * cycle_share else None


def one_cycle_momentum(step, total_steps, high=0.95, low=0.85, cycle_share=0.45, hold=1):
    """Momentum of one update under "one_cycle": from high down to low and up again, high in the tail.

    Source: Smith, 2018, section 4.2: momentum falls while the rate rises.
    """
    up = _cycle(min(1.0, step // hold * hold / max(1, total_steps)), cycle_share)
    return high if up is None else high - (high - low) * up


def plateau_reductions(history, metric, patience):
    """How often the rate has fallen because validation stopped improving.

    It falls after `patience` validations in a row none of which was better than the best one before them; then counting
    begins again, against the same best. Source: for what is watched, Simonyan and Zisserman, 2014, section 3.1; how long
    they waited they do not say.

    Args: history: records of epochs; those without metric, where nothing was validated, do not count. metric: more is better.
    """
    best, waited, reductions = -math.inf, 0, 0
    for record in history:
        if metric not in record:
            continue
        if record[metric] > best:
            best, waited = record[metric], 0
        else:
            waited += 1
        if waited == patience:
            reductions, waited = reductions + 1, 0
    return reductions

"""What changes from update to update: the learning rate, one-cycle's momentum, and the optimizer that takes over."""
from .schedule import learning_rate, one_cycle_momentum, plateau_reductions

__all__ = ["rate_of", "momentum_of", "set_for"]


def _hold(run):
    return len(run.batches) if run.config.schedule_per == "epoch" else 1


def rate_of(run, step):
    """The learning rate of an update."""
    config, epoch = run.config, len(run.batches)
    reductions = 0
    if config.schedule == "plateau":
        reductions = plateau_reductions(run.position.history, f"val_{run.task.metric}", config.patience)
    return learning_rate(step, run.total_steps, run.peak_rate, config.schedule, config.milestones,
                         round(config.warmup_epochs * epoch), rates=config.step_rates, decay=config.lr_decay,
                         decay_steps=config.decay_epochs * epoch, power=config.power, reductions=reductions,
                         cycle_share=config.cycle_share, cycle_divisor=config.cycle_divisor, hold=_hold(run))


def momentum_of(run, step):
    """The momentum of an update, or None where it stays as the optimizer has it."""
    config = run.config
    if config.schedule != "one_cycle":
        return None
    high = config.beta1 if hasattr(run.trainer.optimizer, "beta1") else config.momentum
    return one_cycle_momentum(step, run.total_steps, high, min(config.min_momentum, high), config.cycle_share, _hold(run))


def set_for(run, step):
    """Set up the trainer for an update; the same on every worker."""
    config = run.config
    if config.switch_to is not None and not run.switched and step >= round(config.switch_at * run.total_steps):
        run.switch()
        run.log.say(f"update {step}: {config.switch_to} takes over from {config.optimizer}")
    run.trainer.set_learning_rate(rate_of(run, step))
    momentum = momentum_of(run, step)
    if momentum is not None:
        run.trainer.set_momentum(momentum)

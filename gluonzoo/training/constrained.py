"""A run whose weights are pruned or shared: how that begins, goes on and is continued."""
from . import checkpoint
from .constraints import Tied
from .ema import WeightAverage
from .pruning import Pruner
from .sharing import begin_sharing, shared_parameters

__all__ = ["HoldsConstraint"]


class HoldsConstraint:
    """The part of `session.Run` that prunes and shares. Uses its net, config, trainer, position, ema and log."""

    def constrain(self, saved=None):
        """Begin, or with a checkpoint continue, to prune or share weights as the configuration asks; every worker must call it.

        Raises: UserError when a layer to leave out is not there, or the checkpoint is of other settings.
        """
        config, values = self.config, {} if saved is None else saved.arrays("constraint.params")
        if config.prune or config.keep_zeros:
            self.pruner = Pruner(self.net, config, self.total_steps)
            if values:
                self.pruner.masks.load(values)
                self.pruner.reached = saved.state["pruned_to"]
            else:
                self.pruner.begin_run()
            self.trainer.constraint = self.pruner.masks
        elif config.share_bits and values:
            self.trainer.constraint = Tied.restored(shared_parameters(self.net, config.share_skip), values)
        elif config.share_bits:
            self.trainer.constraint = begin_sharing(self.net, config.share_bits, config.share_init, config.share_skip,
                                                    config.seed)
        elif values:
            raise checkpoint.CheckpointError(f"checkpoint {saved.path} holds pruned weights; expected --prune as it was trained "
                                             "with, or a new run with --weights")
        if self.ema is not None and self.trainer.constraint is not None:
            if saved is None:
                self.ema = WeightAverage(self.net, config.ema, self.statistics())
            self.ema.constraint = self.trainer.constraint

    def prune(self):
        """Prune what this update asks for, if anything; every worker must call it before every update."""
        if self.pruner is not None and self.pruner.update(self.position.step, self.trainer.synchronize):
            self.log.say(f"update {self.position.step}: {100 * self.pruner.sparsity():.2f} % of the weights are pruned",
                         detail=True)

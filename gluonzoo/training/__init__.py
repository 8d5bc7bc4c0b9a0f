"""One trainer and one loop, from one CPU to many machines."""
from . import checkpoint
from .config import TrainConfig
from .finetune import freeze, load_all_but_output
from .loop import Position, Run, TrainingError, evaluate, fit
from .run import prepare, train
from .tasks import Classification
from .trainer import Trainer
from .weights import load_weights

__all__ = ["Trainer", "TrainConfig", "Run", "Position", "TrainingError", "Classification", "fit", "evaluate", "prepare",
           "train", "checkpoint", "load_weights", "freeze", "load_all_but_output"]

"""One trainer and one loop, from one CPU to many machines."""
from . import checkpoint, recipes
from .config import TrainConfig
from .constraints import Masks, Tied
from .distillation import Distillation, Teacher, distillation_loss
from .finetune import freeze, load_all_but_output
from .loop import evaluate, fit
from .pruning import choose_masks
from .recompute import Recomputed
from .run import prepare, train
from .session import Position, Run, TrainingError
from .sharing import begin_sharing
from .stopping import StopRequest
from .tasks import Classification
from .trainer import Trainer
from .weights import load_weights

__all__ = ["Trainer", "TrainConfig", "Run", "Position", "TrainingError", "StopRequest", "Classification", "fit", "evaluate",
           "prepare", "train", "checkpoint", "load_weights", "freeze", "load_all_but_output", "recipes", "Recomputed",
           "Masks", "Tied", "choose_masks", "begin_sharing", "Distillation", "Teacher", "distillation_loss"]

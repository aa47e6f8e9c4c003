"""Training: the LightningModule, the command line, run folders and pictures. All of Lightning and wandb is in here."""

from memnet.training.averaging import AveragedWeights
from memnet.training.building import experiment_from_config
from memnet.training.curriculum import Curriculum
from memnet.training.experiment import Experiment
from memnet.training.health import NumericalHealth
from memnet.training.linear_start import LinearStart

__all__ = ["AveragedWeights", "Curriculum", "Experiment", "LinearStart", "NumericalHealth", "experiment_from_config"]

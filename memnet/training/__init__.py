"""Training: the LightningModule, the command line, run folders and pictures. All of Lightning and wandb is in here."""

from memnet.training.averaging import AveragedWeights
from memnet.training.building import experiment_from_config
from memnet.training.experiment import Experiment

__all__ = ["AveragedWeights", "Experiment", "experiment_from_config"]

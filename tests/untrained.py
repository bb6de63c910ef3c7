"""A model that nobody trained, for what does not depend on how good it is."""

import torch
from tiny import SETTINGS

from audioml.assembly import WithFrontend, build_frontend
from audioml.classifier import Classifier
from audioml.config import load_config
from audioml.models import build_model


def make_classifier(*overrides):
    """An untrained model for sounds of half a second."""
    torch.manual_seed(0)
    config = load_config(overrides=[*SETTINGS, *overrides])
    size = config.input_size
    network = build_model(config.model, n_classes=3, input_size=size, trained=False)
    frontend = build_frontend(config, torch.device("cpu"))
    network = WithFrontend(frontend, network) if frontend.trainable else network
    return Classifier(
        config=config, labels=("low", "middle", "high"), frontend=frontend, network=network
    )

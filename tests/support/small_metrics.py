"""Metrics whose weights are not at hand, on stand-in weights, with their towers made small: same code, other sizes."""

import contextlib
import tempfile
from pathlib import Path
from unittest import mock

import torch

from lowlight_iqa import backbones, create_metric
from lowlight_iqa.metrics import iaca_authors, leiq_authors
from lowlight_iqa.metrics.bmqa.metric import PAPER, Bmqa
from lowlight_iqa.metrics.bmqa.network import BmqaNetwork, Config
from lowlight_iqa.metrics.bmqa.vocabulary import Vocabulary
from lowlight_iqa.registry import get_card
from lowlight_iqa.training.bmqa import descriptions
from support.standin import fill

SIZES = {  # what timm is asked for beside a name
    "vit_base_patch16_siglip_384": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 64},
    "vit_so400m_patch14_siglip_378": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 63},
    "resnet50": {"layers": (1, 1, 1, 1)},
    "vit_base_patch32_224": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "convnext_base": {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48)},
}
SCALE = [0.9, 0.1, 0.0, 0.5]  # a logistic from 0.1 to 0.9
RULES = {"brightness": [0.2, 0.4], "contrast": [15.0, 50.0], "noise": [-0.03, -0.005], "exposure": [-0.1, -0.001]}


@contextlib.contextmanager
def small_towers():
    """Let timm and torchvision build narrow and shallow towers under the names of the large ones."""
    timm, torchvision = backbones.import_timm(), backbones.import_torchvision()
    create = timm.create_model

    def tower(name, **options):
        return create(name, **{**SIZES.get(name, {}), **options})

    def resnext(**_):
        block = torchvision.models.resnet.Bottleneck
        return torchvision.models.ResNet(block, [1, 1, 1, 1], groups=32, width_per_group=1)

    with (
        mock.patch.object(timm, "create_model", tower),
        mock.patch.object(torchvision.models, "resnext101_32x8d", resnext),
    ):
        yield


def filled(module):
    """The tensors of a module, drawn anew."""
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    return {key: torch.from_numpy(value) for key, value in fill(shapes).items()}


def stand_in(name):
    """A small metric of that name; call it, and load what it saves, inside ``small_towers``."""
    card = get_card(name)
    if name == "leiq-ensemble":
        with tempfile.TemporaryDirectory() as folder:
            for part in leiq_authors.TOWERS:
                stand_in(part).save_pretrained(Path(folder) / part)
            metric = create_metric(name, weights=folder)
            metric.keep_loaded = True
            metric(torch.full((3, 64, 64), 0.5))  # now that the folder is there
        return metric
    if name in leiq_authors.TOWERS:
        with torch.device("meta"):
            tower = backbones.siglip_tower(leiq_authors.TOWERS[name][0])
            tensors = filled(leiq_authors.SiglipNetwork(name, tower))
        network = leiq_authors.SiglipNetwork.of_tensors(name, tensors)
        scales = {task: [9.0, 1.0, 0.0, 0.5] if task == "mos" else [5.0, 1.0, 0.0, 0.5] for task in network.tasks}
        return leiq_authors.LeiqSiglip(card, network, scales)
    if name == "iaca-resnext101":
        with torch.device("meta"):
            tensors = filled(iaca_authors.IacaResNeXt101Network())
        return iaca_authors.IacaResNeXt101.from_tensors(card, tensors)
    tower = next(tower for tower, paper in PAPER.items() if paper == name)
    network = BmqaNetwork(
        Config(tower, 32, 4, 1, 16, "transformer", 16, 1, 2, 77, 16), Vocabulary.of(descriptions.all_words())
    )
    network.load_state_dict(filled(network))
    return Bmqa(card, network, SCALE, {**RULES, "appearance": [0.5]})

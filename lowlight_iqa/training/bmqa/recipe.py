"""Every number of the training of ``bmqa``."""

from dataclasses import dataclass

from ..loop import check_numbers

STAGES = ("pretrain", "align", "score", "caption")


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; each stage has its own epochs, batch and rate."""

    dataset: str = "biq2021"  # any of ``ratings.DATASETS``; the descriptions of "mle", "mliq" and "csv" are people's
    tower: str = "lite2"  # or a trunk of timm: "resnet50", "vit_base_patch32_224", "convnext_base"
    text: str = "transformer"  # or "rnn", "bow"
    modalities: str = "both"  # inputs of the score; "image" and "text" for the ablation
    pretrain_epochs: int = 2  # contrastive, with the trunk; the paper: 50 on MS-COCO
    pretrain_batch: int = 48
    pretrain_crop: int = 256
    pretrain_rate: float = 1e-4
    align_epochs: int = 20  # contrastive, the trunk is frozen
    align_batch: int = 256
    align_rate: float = 5e-4
    stop: float = 0.8  # mean contrastive loss of an epoch at which align ends; the paper's, for batches of 256
    score_epochs: int = 6  # on people's scores, everything except the captioner
    score_batch: int = 64
    score_crop: int = 320
    score_rate: float = 3e-4
    trunk_rate: float = 0.0  # of the score stage; 0 freezes the trunk and uses cached features of whole pictures
    frozen: int = 3  # leading stages of a compact trunk that are frozen in the score stage
    channel_dropout: float = 0.3  # of the image features in the score stage
    caption_epochs: int = 24  # the captioner, on cached features
    caption_batch: int = 64
    caption_rate: float = 1e-3
    degraded: int = 1  # degraded copies of each picture in the align and caption stages
    calibrating: int = 600  # degraded pictures to which the words' thresholds are fitted
    slip: float = 0.1  # probability of a neighboring word in the score stage, to simulate a captioner's errors
    appearance_slip: float = 0.3  # the same for the appearance, which follows from the score itself
    unknown: float = 0.1  # share of words masked in the text tower's input
    texts: int = 32  # MLE's descriptions of a step
    words: float = 0.1  # weight of the loss of their scores, predicted from the descriptions only
    by_mse: float = 0.25  # weight of the MSE of standardized scores, added to the PLCC loss
    attend: float = 1.0  # weight of the doubly stochastic attention
    wording: float = 0.1  # weight of MLE's descriptions, which have no pictures, in the caption stage
    dropout: float = 0.5  # before the captioner's output layer
    weight_decay: float = 0.05
    warmup: int = 50  # steps
    average: float = 0.98  # decay of the averaged weights, which are saved
    seed: int = 0

    def __post_init__(self) -> None:
        counts = [f"{stage}_{what}" for stage in STAGES for what in ("epochs", "batch")]
        check_numbers(self, positive=[*counts, "pretrain_crop", "score_crop", "calibrating", "texts"])

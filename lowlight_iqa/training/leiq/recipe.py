"""Every number of the training of ``leiq``."""

from dataclasses import dataclass

from ..loop import check_numbers


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; the defaults are those of the first run that docs/leiq.md lists."""

    dataset: str = "biq2021"  # any of ``ratings.DATASETS``
    backbone: str = "lite2"
    hidden: int = 128
    initial: str = ""  # metric whose trunk training starts from, see ``starting_trunk``; else ImageNet's
    frozen: int = 0  # leading stages of the trunk that are not trained
    epochs: int = 6  # 0: keep the initial trunk and heads
    rated: int = 24  # rated pictures of a step
    crop: int = 320  # side of their random crops
    wider: float = 0.0  # share of the crops that are larger, up to the whole picture, and reduced to ``crop``
    recoded: float = 0.0  # share of the crops that are saved as a JPEG of quality 85 to 97
    view: int = 512  # the metric reduces larger pictures to this shorter side
    bright: float = 0.3  # share of the rated pictures of a step that are not dark; in the list most are dark
    groups: int = 3  # groups of degraded pictures of a step
    degraded: int = 1200  # groups made before training
    degraded_crop: int = 256
    order: float = 1.0  # weight of the order of degraded pictures
    clean_mos: float = 0.55  # a picture above it counts as clean; of another data set, above the same quantile
    dropout: float = 0.2  # of the pooled features
    ridge: float = 1000.0  # strength of the ridge regression that initializes the heads
    trunk_rate: float = 1.5e-4
    head_rate: float = 1e-4
    ladders: int = 1000  # well-exposed pictures whose falling exposure adjusts the MOS head at the end
    ladder_mos: float = 0.5  # their lowest MOS; the order of bad pictures matters less
    ladder_margin: float = 0.25  # of a step, in deviations of the scores of rated pictures
    ladder_keep: float = 0.1  # weight of the change of those scores
    ladder_ridge: float = 0.03
    ladder_noise: float = 0.5  # weight of uniform noise, which must score below a tenth of the exposure
    weight_decay: float = 0.05
    warmup: int = 100  # steps
    average: float = 0.99  # decay of the averaged weights, which are saved
    rated_epochs: int = 0  # of a second part, on rated pictures only
    rated_rate: float = 1e-4
    epoch_steps: int = 0  # steps of an epoch; 0: enough to show every rated picture once
    bound: float = 0.0  # of the second part's adversarial changes, of 255; above 0 trains ``leiq-robust``
    steady: float = 0.1  # weight of the change that the adversary causes in the scores
    half: bool = False  # train the trunk in bfloat16: 1.6 times as fast on processors that support it
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, positive=("hidden", "rated", "crop", "groups", "degraded", "degraded_crop"))
        if self.bound and self.frozen:
            raise ValueError("--frozen stages have no gradient for an adversary (--bound); leave one of them at 0")

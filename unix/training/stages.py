"""The stages as configuration: one type, `TrainConfig`, and one YAML preset per stage."""

from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from unix.config import Config, read_yaml
from unix.data.pack import GenerationPacking, UnderstandingPacking
from unix.data.stream import LoaderConfig
from unix.data.user_prompts import load_user_prompts
from unix.errors import ConfigError
from unix.model.dual_branch import ModelConfig
from unix.model.latent import FoldedVAEConfig
from unix.resources import resource
from unix.training.checkpoint import RetentionConfig
from unix.training.engine import EngineConfig
from unix.training.incidents import IncidentConfig
from unix.training.optim import OptimizerConfig
from unix.training.validation import ValidationConfig


class Stage(StrEnum):
    """The training stages of Table 1, before them the tiny presets' warm start, and Table 5's joint training."""

    WARM_START = "stage0"
    UNDERSTANDING = "stage1"
    GENERATION_PRETRAINING = "stage2"
    GENERATION_FINE_TUNING = "stage3"
    JOINT = "joint"


class AlignmentConfig(Config):
    """REPA: pull one layer's latent tokens towards a frozen image encoder's features."""

    weight: float = 0.5
    layer: PositiveInt = 8
    """Decoder layer, counted from 1, whose output is aligned."""
    encoder: str = "vision-tower"
    """`vision-tower`: the model's own, frozen after stage 1; or the folder of a RAD-DINO."""
    projector_width: PositiveInt = 2048


class GenerationStageConfig(Config):
    """What stages 2 and 3 and the joint stage add."""

    packing: GenerationPacking = GenerationPacking()
    latents: Literal["shards", "memory", "loop"] = "loop"
    """Where latents come from: the set `<data_set>-latents`; encoded once into memory; or encoded in every step."""
    autoencoder: str | None = None
    """Folder of the image autoencoder where the starting checkpoint holds none (kl-f16)."""
    remember_captions: bool = False
    """Run the frozen understanding branch over each caption once and keep its keys and values in memory."""
    copy_understanding: bool = False
    """Start the generation branch as a copy of the understanding branch (stage 2)."""
    freeze_understanding: bool = True
    """Train the generation branch alone. Only the joint stage may set it to false."""
    alignment: AlignmentConfig | None = None


class MixtureConfig(Config):
    """The two sets of the joint stage, and how a batch is shared between them; `data_set` is the generation set."""

    understanding: NonNegativeFloat
    """Parts of understanding samples in a batch; 0 leaves them out."""
    generation: PositiveFloat
    """Parts of generation samples."""
    understanding_set: str
    """Shard set of the understanding samples, such as `understanding-384`."""
    understanding_weight: PositiveFloat = 1.0
    """Weight of the reports' cross entropy in the loss; the generation branch's loss has 1."""


class PartConfig(Config):
    """One part of stage 0; what it does not say is as in the stage's own configuration."""

    steps: PositiveInt
    global_batch: PositiveInt | None = None
    """Samples per step where the stage's own number does not suit."""
    learning_rate: float
    decay_steps: int = 0


class WarmStartConfig(Config):
    """Stage 0, which stands in for pretrained weights in the tiny presets only."""

    text: PartConfig
    """Language modelling on the training reports, without images."""
    tower: PartConfig
    """The vision tower on attributes parsed from the training reports."""
    autoencoder: PartConfig
    """The image autoencoder, in a process of its own beside the other two."""
    codec: FoldedVAEConfig = FoldedVAEConfig()
    autoencoder_set: str
    """Shard set whose images the autoencoder sees."""
    autoencoder_sizes: tuple[PositiveInt, ...]
    """Sides in pixels that it sees them at, in turn."""
    divergence_weight: float = 1e-3
    """Weight of the divergence of the latent from a standard normal."""


class TrainConfig(Config):
    """One run of one stage."""

    stage: Stage
    steps: PositiveInt
    seed: int = 0
    global_batch: PositiveInt
    """Samples per optimizer step over all ranks and micro-batches."""
    micro_batch: PositiveInt
    """Largest number of samples in one forward pass."""
    processes: PositiveInt = 1
    """Processes of this machine that share every batch where there is no torchrun and no GPU; one a core at most."""
    checkpoint_every: PositiveInt
    shards: str
    """Folder or object-store URI that holds the shard sets."""
    releases: dict[str, str] = Field(default={})
    """Shard set -> release to read, so that all stages of a retraining see the same; else the present one."""
    loader: LoaderConfig = LoaderConfig()
    data_set: str
    """Name of the shard set to train on, such as `generation-256`."""
    run_dir: str
    from_checkpoint: str | None = None
    """A run's or checkpoint's folder whose weights the stage starts from."""
    resume: bool = False
    model: ModelConfig
    """The architecture; a starting checkpoint must have the same."""
    optimizer: OptimizerConfig
    engine: EngineConfig = EngineConfig()
    retention: RetentionConfig = RetentionConfig()
    incidents: IncidentConfig = IncidentConfig()
    validation: ValidationConfig = ValidationConfig()
    tensorboard: bool = False
    """Write the metrics as TensorBoard scalars to `<run_dir>/tensorboard` as well."""
    understanding: UnderstandingPacking | None = None
    generation: GenerationStageConfig | None = None
    mixture: MixtureConfig | None = None
    warm_start: WarmStartConfig | None = None

    @model_validator(mode="after")
    def _has_what_its_stage_needs(self) -> Self:
        needed = {
            Stage.WARM_START: ("warm_start", "understanding"),
            Stage.UNDERSTANDING: ("understanding", "from_checkpoint"),
            Stage.GENERATION_PRETRAINING: ("generation", "from_checkpoint"),
            Stage.GENERATION_FINE_TUNING: ("generation", "from_checkpoint"),
            Stage.JOINT: ("mixture", "understanding", "generation", "from_checkpoint"),
        }[self.stage]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            start = " (the weights to start from: --from CHECKPOINT)" if "from_checkpoint" in missing else ""
            raise ValueError(f"{self.stage} needs {' and '.join(missing)}{start}")
        if self.warm_start is not None:
            parts = (self.warm_start.text, self.warm_start.tower, self.warm_start.autoencoder)
            if self.steps != sum(part.steps for part in parts):
                raise ValueError(f"steps {self.steps} is not the sum of its parts' {[part.steps for part in parts]}")
        if self.micro_batch > self.global_batch:
            raise ValueError(f"micro_batch {self.micro_batch} is larger than global_batch {self.global_batch}")
        if self.engine.sharding == "full" and self.loader.on_corrupt == "skip":
            raise ValueError(
                "loader.on_corrupt skip does not go with engine.sharding full: a rank left with fewer micro-batches "
                "would keep the others waiting for ever. `unix shards verify` finds damaged samples; set on_corrupt to "
                "raise or sharding to none"
            )
        return self

    @model_validator(mode="after")
    def _freezes_what_its_stage_does(self) -> Self:
        if self.mixture is not None and self.stage != Stage.JOINT:
            raise ValueError(f"{self.stage} reads data_set alone; mixture is for the stage {Stage.JOINT}")
        if self.generation is None or self.generation.freeze_understanding:
            if self.mixture is not None and self.mixture.understanding > 0:
                raise ValueError(
                    f"mixture.understanding {self.mixture.understanding:g} would train the branch that "
                    "generation.freeze_understanding true freezes; set one of them to 0 or false"
                )
            return self
        if self.stage != Stage.JOINT:
            raise ValueError(f"generation.freeze_understanding false is for the stage {Stage.JOINT}, not {self.stage}")
        if self.generation.remember_captions:
            raise ValueError(
                "generation.remember_captions true needs generation.freeze_understanding true: what a branch in "
                "training makes of a caption changes with every step"
            )
        return self


def packing_of(config: TrainConfig) -> UnderstandingPacking:
    """The understanding side's layout with its wordings filled in from `prompts/describe/` where it names none.

    Raises:
        ConfigError: the stage has no understanding section.
    """
    packing = config.understanding
    if packing is None:
        raise ConfigError(f"{config.stage} has no understanding section")
    if packing.prompts:
        return packing
    wordings = load_user_prompts()
    return packing.model_copy(
        update={"prompts": wordings.findings_and_impression, "findings_prompts": wordings.findings}
    )


def load_stage(
    stage: str, *, preset: str = "tiny", config: str | None = None, overrides: tuple[str, ...] | list[str] = ()
) -> TrainConfig:
    """The configuration of `stage`: a preset's `model.yaml` and `<stage>.yaml`, or a file of one's own; overrides last.

    Raises:
        ConfigError: no such preset or stage, or a value is refused.
    """
    path = Path(config) if config else preset_path(preset, stage)
    values = read_yaml(path)
    if "model" not in values:
        values["model"] = read_yaml(path.with_name("model.yaml") if not config else preset_path(preset, "model"))
    values.setdefault("stage", stage)
    loaded = TrainConfig.build(values, overrides, origin=str(path))
    if loaded.stage != stage:
        raise ConfigError(f"{path} configures {loaded.stage}, not {stage}")
    return loaded


def preset_path(preset: str, name: str) -> Path:
    """`unix/presets/<preset>/<name>.yaml`.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    path = resource("presets", preset, f"{name}.yaml")
    if not path.is_file():
        files = (item for item in resource("presets").glob("*/*.yaml") if item.stem != "model")
        there = sorted(f"{item.parent.name}/{item.stem}" for item in files)
        raise ConfigError(f"there is no preset {preset}/{name}; there are {', '.join(there)}")
    return path

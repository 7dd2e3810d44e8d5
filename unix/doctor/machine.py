"""Checks of the machine: packages, GPUs, cores, memory."""

import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from unix.doctor.check import FLOAT32, GIB, Check

if TYPE_CHECKING:
    from unix.training.stages import TrainConfig

REPOSITORY = Path(__file__).resolve().parents[2]
_DISTRIBUTION = "unix-cxr"


def check_packages() -> Iterator[Check]:
    """Python and what the package needs, against the versions that are tested together."""
    yield Check(name="python", state="ok", found=f"{platform.python_version()} on {platform.platform(terse=True)}")
    try:
        wanted = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Check(name="packages", state="missing", found="unix-cxr is not installed", remedy="run `make setup`")
        return
    tested = _tested_versions()
    absent: list[str] = []
    differ: list[str] = []
    names = sorted({_package_name(line) for line in wanted if "extra ==" not in line})
    for name in names:
        try:
            installed = version(name)
        except PackageNotFoundError:
            absent.append(name)
            continue
        if name in tested and installed.partition("+")[0] != tested[name]:
            differ.append(f"{name} {installed} (tested: {tested[name]})")
    if absent:
        yield Check(
            name="packages", state="missing", found=f"not installed: {', '.join(absent)}", remedy="run `make setup`"
        )
    if differ:
        yield Check(
            name="packages",
            state="warning",
            found=f"{len(differ)} of {len(names)} are other versions than those tested together: {', '.join(differ)}",
            remedy="`pip install --constraint constraints.txt --editable .` restores them",
        )
    if not absent and not differ:
        found = f"{len(names)} as in constraints.txt" if tested else f"{len(names)} installed"
        yield Check(name="packages", state="ok", found=found)


def _package_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else requirement


def _tested_versions() -> dict[str, str]:
    """Versions in `constraints.txt` by package; none where the package was installed without its repository."""
    path = REPOSITORY / "constraints.txt"
    if not path.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pins = (line.split("==", 1) for line in lines if "==" in line)
    return {_package_name(name): pin.strip() for name, pin in pins}


def check_devices(stages: "list[TrainConfig]") -> Iterator[Check]:
    """GPUs with their memory, and whether they compute what the preset's stages want."""
    for_gpus = any(stage.engine.precision == "bfloat16" or stage.engine.sharding == "full" for stage in stages)
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(name="torch", state="missing", found=f"cannot be loaded: {error}", remedy="install torch again")
        return
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "torch is a build for the CPU alone" if built is None else f"torch {torch.__version__} sees no GPU"
        remedy = (
            "install the torch build for your CUDA from https://pytorch.org/get-started/locally"
            if built is None
            else "compare the driver in `nvidia-smi` with this CUDA version, and look at CUDA_VISIBLE_DEVICES"
        )
        yield Check(
            name="GPU",
            state="missing" if for_gpus else "ok",
            found=f"none: {why}",
            remedy=remedy if for_gpus else "",
        )
        return
    for index in range(torch.cuda.device_count()):
        device = cast(Any, torch.cuda.get_device_properties(index))  # pyright: ignore[reportUnknownMemberType]: torch leaves its type open
        able = device.major >= 8
        yield Check(
            name=f"GPU {index}",
            state="ok" if able or not for_gpus else "missing",
            found=f"{device.name}, {device.total_memory / GIB:.1f} GiB, "
            + ("bfloat16" if able else f"no bfloat16 (compute capability {device.major}.{device.minor})"),
            remedy="" if able else "a stage with engine.precision=bfloat16 wants an Ampere GPU or newer",
        )
    if torch.cuda.device_count() > 1 and not torch.distributed.is_nccl_available():
        yield Check(name="NCCL", state="missing", found="this torch has none", remedy="install torch's CUDA build")


def check_memory(stages: "list[TrainConfig]") -> Iterator[Check]:
    """Cores, and the memory that loading and saving take."""
    cores = len(os.sched_getaffinity(0))
    yield Check(name="cores", state="ok", found=f"{cores} for this process")
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not stages:
        yield Check(name="memory", state="ok", found=f"{have / GIB:.0f} GiB")
        return
    import torch

    ranks = max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 1
    need = max(_host_bytes(stage, ranks) for stage in stages)
    yield Check(
        name="memory",
        state="ok" if need < 0.9 * have else "warning",
        found=f"{have / GIB:.0f} GiB; loading on {ranks} ranks and saving on one take about {need / GIB:.3g}",
        remedy="" if need < 0.9 * have else "use a machine with more memory, or fewer ranks on each",
    )


def _host_bytes(stage: "TrainConfig", ranks: int) -> float:
    """A checkpoint's copy, its model whole on one rank; where nothing is sharded, each rank's model as it is read."""
    everything, trained = count_parameters(stage)
    copies = 3 + (stage.optimizer.average_decay is not None)
    loading = 0 if stage.engine.sharding == "full" else ranks * everything
    return FLOAT32 * (everything + copies * trained + loading)


def count_parameters(stage: "TrainConfig") -> tuple[int, int]:
    """All of a stage's parameters, and those that it trains; nothing is allocated."""
    import torch

    from unix.model.dual_branch import DualBranch
    from unix.training.stages import Stage

    with torch.device("meta"):
        model = DualBranch(stage.model)
    reads = stage.stage in (Stage.WARM_START, Stage.UNDERSTANDING)
    trained = model.understanding_parameters() if reads else model.generation_parameters()
    if stage.generation is not None and not stage.generation.freeze_understanding:
        trained = model.named_parameters()
    return sum(value.numel() for value in model.parameters()), sum(value.numel() for _, value in trained)

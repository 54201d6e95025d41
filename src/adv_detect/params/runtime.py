"""Block ``runtime`` of ``parameters.yml``: engine, device and seed of every pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adv_detect.fields import LARGEST, Block, Count, Seed


class RayParams(Block):
    """Resources of one task when shards run on a Ray cluster."""

    address: str | None = None
    """Of the cluster; null = one on this machine."""
    num_cpus: float = Field(1, ge=0)
    """Cores of one task."""
    num_gpus: float = Field(0, ge=0)
    """GPUs of one task; a fraction shares one."""
    max_retries: int = Field(3, ge=0, le=LARGEST)
    """Times that a task whose worker died is tried again."""


class RuntimeParams(Block):
    """Seed, device, engine and batch sizes of the nodes that compute."""

    seed: Seed = 0
    device: str = "auto"
    batch_size: Count = 256
    shard_size: Count = 500
    engine: Literal["local", "ray"] = "local"
    processes: Literal["auto"] | Count = 1
    ray: RayParams = RayParams()
    progress: bool = True
    wait_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)

"""Block ``serving`` of ``parameters.yml``: the registered model."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from adv_detect.fields import NAME_WORDS, Block, Rate, check_name


def _model_name(value: str) -> str:
    """Refuse a dot as well, which MLflow does not take in the name of a logged model."""
    if "." in value:
        raise ValueError(f"expected a name of {NAME_WORDS} but without '.', got {value!r}")
    return check_name(value)


class ServingParams(Block):
    """The registered model."""

    name: Annotated[str, AfterValidator(_model_name)] = "adv-detect"
    fpr: Rate = 0.05
    max_images: int = Field(256, ge=1)
    max_bytes: int = Field(32 * 2**20, ge=1024)

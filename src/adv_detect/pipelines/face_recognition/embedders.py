"""Networks that embed faces, as the configured gate asks for them."""

from __future__ import annotations

from adv_detect.absent import Absent
from adv_detect.errors import ConfigurationError, DataError
from adv_detect.images import ImageSet, shape_of
from adv_detect.networks.target import TargetNetwork
from adv_detect.params import FaceRecognitionParams, RuntimeParams
from adv_detect.pipelines.face_recognition.embedding_shards import Embedder


def plan_embedder(
    network: TargetNetwork, twin: TargetNetwork | Absent, params: FaceRecognitionParams, runtime: RuntimeParams
) -> Embedder:
    """Choose what embeds faces.

    Args:
        network: The network whose last layer is the embedding.
        twin: The second network.
        params: Whether mirror images count, and whether the gate asks the twin.
        runtime: Batch size, device.

    Returns:
        An embedder with the twin where the gate asks it.

    Raises:
        ConfigurationError: The gate asks the twin, and there is none.
    """
    return Embedder(network, params.mirror, runtime, asked_twin(twin, params))


def asked_twin(twin: TargetNetwork | Absent, params: FaceRecognitionParams) -> TargetNetwork | None:
    """Return the twin where the gate asks it for the similarity.

    Args:
        twin: The second network.
        params: The forms of the gate.

    Returns:
        The twin; None where it is not asked.

    Raises:
        ConfigurationError: It is asked, and there is none.
    """
    if not params.gate.asks_twin:
        return None
    if isinstance(twin, Absent):
        raise ConfigurationError(no_twin(params))
    return twin


def no_twin(params: FaceRecognitionParams) -> str:
    """Say that the gate asks a twin that does not exist."""
    gate = params.gate
    return (
        f"face_recognition.gate: forms {list(gate.forms)} and served {gate.served!r} ask the twin for the similarity, "
        "and there is none; set twin_training.network and run the main job, or use forms: [detector] and "
        "served: detector"
    )


def check_shape(images: ImageSet, network: TargetNetwork) -> None:
    """Refuse verification images of another shape than the network takes.

    Args:
        images: Images of the people to verify.
        network: The network.

    Raises:
        DataError: The shapes differ.
    """
    if (shape := shape_of(images)) != network.spec.image_shape:
        raise DataError(
            f"verification_images: expected images of shape {network.spec.image_shape} (channels, height, width) as "
            f"the network takes, got {shape}; give the entry the crop and colour of train_images"
        )

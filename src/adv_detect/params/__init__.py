"""Typed parameter blocks, one a module of the same name.

The block of a pipeline stands in ``conf/base/parameters_<pipeline>.yml``, those that several pipelines read in
``conf/base/parameters.yml``.
Each block is the type hint of a node's ``params:`` argument, so Kedro builds and checks it before any node
runs: a misspelt key or a value out of range fails early with a message that names the key.
"""

from adv_detect.fields import Block
from adv_detect.params.adaptive_attack import (
    RESERVED_ADAPTIVE,
    AdaptiveAttackParams,
    AdaptiveAttackSpec,
    HardeningParams,
    LayerMatchingParams,
    SubstituteParams,
)
from adv_detect.params.adversarial_generation import RESERVED_ATTACKS, AdversarialGenerationParams, AttackParams
from adv_detect.params.calibration import CalibrationParams
from adv_detect.params.detector_training import (
    DetectorFitParams,
    DetectorParams,
    DetectorTrainingParams,
)
from adv_detect.params.evaluation import FEWEST_TAILS, EvaluationParams
from adv_detect.params.face_recognition import FacePairsParams, FaceRecognitionParams, GateParams
from adv_detect.params.feature_extraction import FeatureExtractionParams
from adv_detect.params.image_changes import BenignChangeParams, ImageChangeParams
from adv_detect.params.monitoring import MonitoringParams
from adv_detect.params.network import LayerParams, NetworkParams, PreprocessingParams
from adv_detect.params.representatives import RepresentativesParams
from adv_detect.params.runtime import RayParams, RuntimeParams
from adv_detect.params.scoring import ScoringParams
from adv_detect.params.serving import ServingParams
from adv_detect.params.splits import SplitParams
from adv_detect.params.target_training import NetworkFitParams, TargetTrainingParams
from adv_detect.params.terms import (
    SPLITS,
    AttackForm,
    Budgets,
    ClassOrder,
    Criteria,
    Criterion,
    Distance,
    Norm,
    Representative,
    Split,
    TrainedCriteria,
    TrajectoryKind,
)
from adv_detect.params.twin_training import SAME, TwinNetworkParams, TwinTrainingParams

BLOCKS: dict[str, type[Block]] = {
    "runtime": RuntimeParams,
    "network": NetworkParams,
    "splits": SplitParams,
    "serving": ServingParams,
    "target_training": TargetTrainingParams,
    "twin_training": TwinTrainingParams,
    "feature_extraction": FeatureExtractionParams,
    "representatives": RepresentativesParams,
    "adversarial_generation": AdversarialGenerationParams,
    "detector_training": DetectorTrainingParams,
    "evaluation": EvaluationParams,
    "face_recognition": FaceRecognitionParams,
    "adaptive_attack": AdaptiveAttackParams,
    "scoring": ScoringParams,
    "calibration": CalibrationParams,
    "monitoring": MonitoringParams,
}
"""Every block of the parameter files by name."""


__all__ = [
    "BLOCKS",
    "FEWEST_TAILS",
    "RESERVED_ADAPTIVE",
    "RESERVED_ATTACKS",
    "SAME",
    "SPLITS",
    "AdaptiveAttackParams",
    "AdaptiveAttackSpec",
    "AdversarialGenerationParams",
    "AttackForm",
    "AttackParams",
    "BenignChangeParams",
    "Budgets",
    "CalibrationParams",
    "ClassOrder",
    "Criteria",
    "Criterion",
    "DetectorFitParams",
    "DetectorParams",
    "DetectorTrainingParams",
    "Distance",
    "EvaluationParams",
    "FacePairsParams",
    "FaceRecognitionParams",
    "FeatureExtractionParams",
    "GateParams",
    "HardeningParams",
    "ImageChangeParams",
    "LayerMatchingParams",
    "LayerParams",
    "MonitoringParams",
    "NetworkFitParams",
    "NetworkParams",
    "Norm",
    "PreprocessingParams",
    "RayParams",
    "Representative",
    "RepresentativesParams",
    "RuntimeParams",
    "ScoringParams",
    "ServingParams",
    "Split",
    "SplitParams",
    "SubstituteParams",
    "TargetTrainingParams",
    "TrainedCriteria",
    "TrajectoryKind",
    "TwinNetworkParams",
    "TwinTrainingParams",
]

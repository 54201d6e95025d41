"""Wiring of face_recognition."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Pipeline, node

from adv_detect.pipelines.face_recognition import nodes
from adv_detect.pipelines.face_recognition.adaptive_faces import embed_adaptive_faces
from adv_detect.pipelines.face_recognition.clean_pairs import gather_clean_pairs, pair_validation_faces
from adv_detect.pipelines.face_recognition.detection import compare_detection, measure_distances, summarise_distances
from adv_detect.pipelines.face_recognition.figures import (
    draw_faces,
    show_face_figures,
    write_face_part,
    write_face_sections,
)
from adv_detect.pipelines.face_recognition.gate import identify_through_gate, measure_gate, pair_gate_faces
from adv_detect.pipelines.face_recognition.gate_model import assemble_verifier
from adv_detect.pipelines.face_recognition.gate_scores import score_gate_images, score_pair_images

PARAMS = "params:face_recognition"
RUNTIME = "params:runtime"


def create_pipeline(**_: Any) -> Pipeline:
    """Build the pipeline from stored adversarial examples to verification and identification under attack."""
    return Pipeline(
        [*_embedding(), *_verifying(), *_identifying(), *_scoring(), *_gating(), *_showing()], tags="face_recognition"
    )


def _embedding() -> list[Any]:
    return [
        node(
            nodes.choose_pairs,
            inputs=["verification_images", "verification_pairs", PARAMS, RUNTIME],
            outputs="verification_pair_table",
            name="choose_pairs",
        ),
        node(
            nodes.embed_faces,
            inputs=["verification_images", "network_weights", "twin", "verification_pair_table", PARAMS, RUNTIME],
            outputs="verification_embeddings",
            name="embed_faces",
        ),
        node(
            nodes.embed_attacked_faces,
            inputs=["adversarials", "network_weights", "twin", PARAMS, RUNTIME],
            outputs="attack_embeddings",
            name="embed_attacked_faces",
        ),
    ]


def _verifying() -> list[Any]:
    return [
        node(
            nodes.verify_clean,
            inputs=["verification_embeddings", "verification_pair_table", PARAMS],
            outputs=["verification_scores", "verification_metrics"],
            name="verify_clean",
        ),
        node(
            nodes.pair_attacked_faces,
            inputs=["attack_embeddings", RUNTIME],
            outputs="attacked_pair_scores",
            name="pair_attacked_faces",
        ),
        node(
            nodes.verify_attacked,
            inputs=["attacked_pair_scores", "verification_scores", PARAMS],
            outputs=["face_verification", "face_verification_csv"],
            name="verify_attacked",
        ),
    ]


def _identifying() -> list[Any]:
    return [
        node(
            nodes.identify_faces,
            inputs=["attack_embeddings", "representatives", "features", PARAMS],
            outputs=["face_identification", "face_identification_csv"],
            name="identify_faces",
        ),
        node(
            nodes.summarise_faces,
            inputs=["verification_metrics", "face_verification", "face_identification", "face_gate"],
            outputs="face_metrics",
            name="summarise_faces",
        ),
        node(
            measure_distances,
            inputs=["attack_embeddings", "representatives"],
            outputs="representative_distances",
            name="measure_distances",
        ),
        node(
            summarise_distances,
            inputs="representative_distances",
            outputs="face_distances_csv",
            name="summarise_distances",
        ),
        node(
            compare_detection,
            inputs=["detection_metrics", "params:adversarial_generation", "params:detector_training"],
            outputs="deep_features_detection_csv",
            name="compare_detection",
        ),
    ]


def _scoring() -> list[Any]:
    return [
        node(
            score_gate_images,
            inputs=["activations", "detectors", "detector_summary", "representatives", RUNTIME],
            outputs="gate_scores",
            name="score_gate_images",
        ),
        node(
            score_pair_images,
            inputs=[
                "verification_images",
                "verification_pair_table",
                "network_weights",
                "representatives",
                "twin",
                "detectors",
                "detector_summary",
                RUNTIME,
            ],
            outputs="pair_image_scores",
            name="score_pair_images",
        ),
        node(
            embed_adaptive_faces,
            inputs=[
                "known_adversarials",
                "detectors",
                "detector_summary",
                "network_weights",
                "twin",
                PARAMS,
                RUNTIME,
            ],
            outputs="adaptive_embeddings",
            name="embed_adaptive_faces",
        ),
    ]


def _gating() -> list[Any]:
    return [
        node(
            pair_gate_faces,
            inputs=["attacked_pair_scores", "adaptive_embeddings", "attack_embeddings", "representatives", RUNTIME],
            outputs="gate_pairs",
            name="pair_gate_faces",
        ),
        node(
            pair_validation_faces,
            inputs=["attack_embeddings", RUNTIME],
            outputs="validation_pair_scores",
            name="pair_validation_faces",
        ),
        node(
            measure_gate,
            inputs=[
                "gate_pairs",
                "validation_pair_scores",
                "verification_scores",
                "pair_image_scores",
                "gate_scores",
                "detectors",
                "detector_summary",
                PARAMS,
            ],
            outputs=["face_gate", "face_gate_csv"],
            name="measure_gate",
        ),
        node(
            identify_through_gate,
            inputs=[
                "attack_embeddings",
                "adaptive_embeddings",
                "gate_scores",
                "representatives",
                "features",
                "detectors",
                "detector_summary",
                PARAMS,
            ],
            outputs=["face_gate_identification", "face_gate_identification_csv"],
            name="identify_through_gate",
        ),
        node(
            gather_clean_pairs,
            inputs=["verification_scores", "validation_pair_scores", PARAMS, "params:serving"],
            outputs="clean_pairs",
            name="gather_clean_pairs",
        ),
        node(
            assemble_verifier,
            inputs=[
                "clean_pairs",
                "detectors",
                "detector_summary",
                "network_weights",
                "representatives",
                "twin",
                PARAMS,
                "params:serving",
            ],
            outputs="verification_model",
            name="assemble_verifier",
        ),
    ]


def _showing() -> list[Any]:
    return [
        node(
            draw_faces,
            inputs=["verification_scores", "attacked_pair_scores", "representative_distances", "face_gate", PARAMS],
            outputs="face_figures",
            name="draw_faces",
        ),
        node(
            show_face_figures,
            inputs=["face_figures", RUNTIME],
            outputs=[
                "face_pictures",
                "face_verification_figure",
                "representative_distances_figure",
                "face_gate_figure",
            ],
            name="show_face_figures",
        ),
        node(
            write_face_sections,
            inputs=[
                "verification_metrics",
                "face_verification",
                "face_identification",
                "face_distances_csv",
                "deep_features_detection_csv",
                "face_pictures",
                PARAMS,
            ],
            outputs="face_report_sections",
            name="write_face_sections",
        ),
        node(
            write_face_part,
            inputs=[
                "face_report_sections",
                "face_gate",
                "face_gate_identification",
                "face_pictures",
                "detector_summary",
            ],
            outputs="face_recognition_part",
            name="write_face_part",
        ),
    ]

"""Verification and identification of faces, clean and attacked."""

from adv_detect.pipelines.face_recognition.pipeline import create_pipeline

__all__ = ["create_pipeline"]

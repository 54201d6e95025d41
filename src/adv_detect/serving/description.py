"""Descriptions and tags of the registered model: requests, answers and origin."""

from __future__ import annotations

from typing import Any

from adv_detect.serving.bundle import CALIBRATION, ScoringBundle
from adv_detect.serving.limits import Limits

OUTPUTS = {
    "predicted_class": "name of the class that the network under attack gives the image",
    "predicted_index": "index of that class",
    "adversarial_score": "higher is more likely adversarial; no probability",
    "p_value": "share of clean images that score so high: (1 + those at or above) / (n_clean + 1)",
    "threshold": "of the verdict, fixed on clean images at the false-positive rate asked for",
    "is_adversarial": "verdict: adversarial_score > threshold",
    "n_clean": "number of clean images that threshold and p-value rest on",
    "model_version": "registered name and version",
}
TEMPLATE = """\
Says of each image which class the network sees in it and whether it looks like an adversarial example: network,
class representatives and detector in one.

**Input**: a tensor `(N, {shape})`, float32, channels first, pixels in [{low:g}, {high:g}]{eight_bit}. Another shape or
range is refused with a message.

In its place a table with one column of encoded pictures (JPEG, PNG, ...) of any size: bytes, or text in base64. Over
HTTP a list of such texts as `inputs`, or a column of them as `dataframe_split`.

**Parameters**: `explain` (true adds columns that say why); `fpr`, the false-positive rate of the verdict on clean
images, above 0 and below 1 (thresholds rest on {n} clean images: below {least:.2g} nothing is promised); default
{fpr:g}.

**Output**, a row per image:

{outputs}

**Over HTTP**, served with `mlflow models serve -m models:/{name}@champion --env-manager local -p 5001`: POST to
`/invocations` (`serving_input_example.json` among the model's files is a complete payload):

```json
{{"inputs": {example}, "params": {{"fpr": {fpr:g}}}}}
```

At most {max_images:,} images and {max_bytes:,} bytes a request, more are refused; the variables `ADV_DETECT_MAX_IMAGES`
and `ADV_DETECT_MAX_BYTES` of the server say otherwise, and `/limits` tells what is in force.

**In Python**:

```python
model = mlflow.pyfunc.load_model("models:/{name}@champion")
model.predict(images, params={{"fpr": {fpr:g}}})  # images: numpy array (N, {shape}), float32
```
"""


def model_description(bundle: ScoringBundle) -> str:
    """Explain the registered model to whoever is going to ask it.

    Args:
        bundle: What is served.

    Returns:
        Markdown.
    """
    spec = bundle.network.spec
    low, high = spec.bounds
    limits = Limits.from_environment(bundle.metadata, {})
    return TEMPLATE.format(
        shape=", ".join(map(str, spec.image_shape)),
        low=low,
        high=high,
        eight_bit=" (8-bit pixels divided by 255)" if (low, high) == (0.0, 1.0) else "",
        least=1 / len(bundle.stored.clean_scores),
        n=len(bundle.stored.clean_scores),
        fpr=float(bundle.metadata["fpr"]),
        outputs="\n".join(f"- `{name}`: {meaning}" for name, meaning in OUTPUTS.items()),
        name=bundle.metadata["name"],
        max_images=limits.max_images,
        max_bytes=limits.max_bytes,
        example=f"[[[[{low:.1f}, {low:.1f}, ...], ...], ...]]",
    )


def version_description(bundle: ScoringBundle) -> str:
    """Say what this version is made of.

    Args:
        bundle: What is served.

    Returns:
        Markdown.
    """
    spec = bundle.network.spec
    n = len(bundle.stored.clean_scores)
    thresholds = ", ".join(f"{value:.4g} at {rate:g}" for rate, value in sorted(bundle.thresholds.items()))
    lines = [
        f"Detector `{bundle.stored.key}`, the best on validation images (test images play no part in the choice).",
        f"Network under attack: `{spec.name}`, {spec.num_classes} classes{_accuracy(bundle)}.",
        f"Thresholds by false-positive rate, on {n} {_clean_images(bundle)}: {thresholds}.",
        *_calibration_lines(bundle),
    ]
    return "\n\n".join(lines)


def version_tags(bundle: ScoringBundle) -> dict[str, str]:
    """List the facts by which versions are searched and compared.

    Args:
        bundle: What is served.

    Returns:
        Tag to value. Facts that the bundle lacks are left out.
    """
    metadata, spec = bundle.metadata, bundle.network.spec
    facts: dict[str, Any] = {
        "detector": bundle.stored.key,
        "trained_criterion": bundle.stored.facts.get("trained_criterion"),
        "attacks": ", ".join(bundle.stored.facts.get("attacks", ())) or None,
        "validation_macro_auc": _rounded(metadata.get("validation_macro_auc")),
        "validation_macro_auc_all": _rounded(metadata.get("validation_macro_auc_all")),
        "network": spec.name,
        "network_accuracy": _rounded(spec.accuracy),
        "classes": spec.num_classes,
        "input_shape": f"(N, {', '.join(map(str, spec.image_shape))}) float32",
        "pixel_range": f"[{spec.bounds[0]:g}, {spec.bounds[1]:g}]",
        "fpr_default": f"{float(metadata['fpr']):g}",
        "clean_images": len(bundle.stored.clean_scores),
        "fpr_choices": ", ".join(f"{rate:g}" for rate in sorted(bundle.thresholds)),
        "calibration_images": metadata.get(CALIBRATION, {}).get("images"),
        "calibration_check": metadata.get(CALIBRATION, {}).get("check"),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _clean_images(bundle: ScoringBundle) -> str:
    return "clean pictures of a calibration" if CALIBRATION in bundle.metadata else "clean validation images"


def _calibration_lines(bundle: ScoringBundle) -> list[str]:
    facts = bundle.metadata.get(CALIBRATION)
    return (
        [] if facts is None else [f"Calibrated on `{facts['images']}`; check of these pictures: **{facts['check']}**."]
    )


def _accuracy(bundle: ScoringBundle) -> str:
    accuracy = bundle.network.spec.accuracy
    return "" if accuracy is None else f", accuracy {accuracy:.4f} on clean test images"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"

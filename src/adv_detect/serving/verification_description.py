"""Descriptions and tags of the registered gate for verification."""

from __future__ import annotations

from adv_detect.names import GATE_BOTH, GATE_DETECTOR, GATE_SIMILARITY
from adv_detect.serving.description import version_description, version_tags
from adv_detect.serving.verification import VerificationBundle

OUTPUTS = {
    "similarity": "cosine similarity of the embeddings of both pictures",
    "similarity_threshold": "from which two pictures count as the same person, at the false-accept rate asked for",
    "same_person": "similarity >= similarity_threshold",
    "first_score": "of the detector for the first picture: higher is more likely adversarial; no probability",
    "first_p_value": "share of clean images that score so high: (1 + those at or above) / (n_clean + 1)",
    "first_is_adversarial": "first_score > threshold",
    "second_...": "the same of the second picture",
    "threshold": "of the detector, at the false-positive rate asked for",
    "n_clean": "clean images that threshold and p-values rest on",
    "n_pairs": "clean pairs of different people that similarity_threshold rests on",
}
TWIN_OUTPUTS = {
    "twin_similarity": "cosine similarity in the twin, a second network that is harder to mislead",
    "twin_threshold": "from which the twin finds the same person, at the rate of clean pairs turned away asked for",
    "twin_same_person": "twin_similarity >= twin_threshold",
    "n_same_pairs": "clean pairs of the same person that twin_threshold rests on",
}
ACCEPTED = {
    GATE_DETECTOR: "the joined verdict: the same person, and neither picture flagged",
    GATE_SIMILARITY: "the joined verdict: network and twin find the same person; flagged pictures do not count",
    GATE_BOTH: "the joined verdict: network and twin find the same person, and neither picture is flagged",
}
TEMPLATE = """\
A gate for 1:1 verification: says of two pictures whether they show the same person and whether one of them looks like
an adversarial example. Accept a pair only where `accepted` is true.

**Input**: a tensor `(N, {shape})`, float32: pairs of pictures, channels first, pixels in [{low:g}, {high:g}], aligned
as the network expects. Another shape or range is refused with a message.

**Parameters**: `far`, the false-accept rate on clean pairs (default {far:g}; the threshold rests on {pairs:,} clean
pairs of different people: below {least_far:.2g} nothing is promised), and `fpr`, the rate at which the detector flags
clean pictures (default {fpr:g}; on {clean:,} clean images: below {least:.2g} nothing is promised){asked}.

**Output**, a row per pair:

{outputs}

**Over HTTP**, served with `mlflow models serve -m models:/{name}@champion --env-manager local -p 5001`: POST to
`/invocations`

```json
{{"inputs": [[first, second], ...], "params": {{"far": {far:g}, "fpr": {fpr:g}}}}}
```

**In Python**:

```python
model = mlflow.pyfunc.load_model("models:/{name}@champion")
model.predict(pairs, params={{"far": {far:g}, "fpr": {fpr:g}}})  # pairs: numpy array (N, {shape}), float32
```
"""


def gate_description(bundle: VerificationBundle) -> str:
    """Explain the registered gate to whoever is going to ask it.

    Args:
        bundle: What is served.

    Returns:
        Markdown.
    """
    low, high = bundle.gate.network.spec.bounds
    clean, pairs = len(bundle.gate.stored.clean_scores), len(bundle.different)
    outputs = OUTPUTS | ({} if bundle.twin_same is None else TWIN_OUTPUTS) | {"accepted": ACCEPTED[bundle.form]}
    return TEMPLATE.format(
        shape=", ".join(map(str, bundle.input_shape)),
        low=low,
        high=high,
        far=float(bundle.metadata["far"]),
        fpr=float(bundle.metadata["fpr"]),
        pairs=pairs,
        clean=clean,
        least_far=1 / pairs,
        least=1 / clean,
        name=bundle.metadata["name"],
        asked=_asked(bundle),
        outputs="\n".join(f"- `{name}`: {meaning}" for name, meaning in outputs.items()),
    )


def _asked(bundle: VerificationBundle) -> str:
    """Say what the rate means for the twin, where it is asked."""
    if bundle.twin_same is None:
        return ""
    count = len(bundle.twin_same)
    least = f"from {1 / count:.2g} on"
    return f"; also the share of {count:,} clean pairs of a person below the threshold of the twin, {least}"


def gate_version(bundle: VerificationBundle) -> str:
    """Say what this version is made of.

    Args:
        bundle: What is served.

    Returns:
        Markdown.
    """
    far = float(bundle.metadata["far"])
    pairs = f"{len(bundle.different):,} clean pairs of different people and {len(bundle.same):,} of the same"
    similarity = (
        f"Similarity from {bundle.similarity_threshold():.4f} on at a false-accept rate of {far:g}, on {pairs}."
    )
    if bundle.twin_same is not None:
        similarity += f" In the twin from {bundle.twin_threshold():.4f} on, on {len(bundle.twin_same):,} clean pairs."
    return f"{version_description(bundle.gate)}\n\n{similarity}"


def gate_tags(bundle: VerificationBundle) -> dict[str, str]:
    """List the facts by which versions are searched and compared.

    Args:
        bundle: What is served.

    Returns:
        Tag to value.
    """
    shape = ", ".join(map(str, bundle.input_shape))
    own = {
        "gate": bundle.form,
        "far_default": f"{float(bundle.metadata['far']):g}",
        "input_shape": f"(N, {shape}) float32",
    }
    return version_tags(bundle.gate) | own | {"clean_pairs": str(len(bundle.same) + len(bundle.different))}

"""Published figures, for comparison.

Source: Massoli, Carrara, Amato, Falchi: "Detection of Face Recognition Adversarial Attacks", Computer Vision and Image
Understanding, 2021 (arXiv 1912.02918), table 1. The setting is another one than that of most runs here: SE-ResNet-50
on 500 identities of VGGFace2, adversarial examples split without regard to their source image.
"""

from __future__ import annotations

_ATTACKS = ("bim", "cw", "mi-fgsm", "macro")
_ROWS = {
    "targeted": {
        "LSTM + M + L2": (0.977, 0.871, 0.986, 0.944),
        "LSTM + C + L2": (0.970, 0.857, 0.982, 0.936),
        "LSTM + M + cos": (0.986, 0.904, 0.991, 0.960),
        "LSTM + C + cos": (0.968, 0.895, 0.981, 0.948),
    },
    "untargeted": {
        "LSTM + M + L2": (0.878, 0.615, 0.889, 0.794),
        "LSTM + C + L2": (0.863, 0.596, 0.869, 0.776),
        "LSTM + M + cos": (0.929, 0.599, 0.930, 0.819),
        "LSTM + C + cos": (0.884, 0.568, 0.886, 0.779),
    },
}

PUBLISHED_AUC: dict[str, dict[str, dict[str, float]]] = {
    criterion: {label: dict(zip(_ATTACKS, values, strict=True)) for label, values in rows.items()}
    for criterion, rows in _ROWS.items()
}
"""AUC by criterion, configuration and attack (``macro``: mean over the attacks)."""

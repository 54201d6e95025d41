"""The fixed sentences of the sections on faces."""

from __future__ import annotations

from adv_detect.reporting.blocks import prose

TEXTS = {
    name: prose(text)
    for name, text in {
        "verification": """
            **1:1 verification** compares two images by the cosine similarity of their embeddings, the pooled features
            of the network's last layer, and accepts from a threshold on. Thresholds are fixed on **clean** pairs:
            at the highest accuracy, at equal errors, or at a rate of false accepts. Then one image of a pair is
            replaced by an adversarial one of the test split.
        """,
        "impersonation": """
            Impersonation: targeted adversarials of one person, compared with a clean image of the person aimed at.
            `fooled` is the share of pairs accepted; the row `clean` is the false-accept rate of the clean pairs that
            fixed the threshold. AUC and EER set the attacked pairs against clean pairs of the same person; beside
            them (`clean`) those of the very same pairs before the attack.
        """,
        "dodging": """
            Dodging: untargeted adversarials of one person, compared with another clean image of the same person.
            `fooled` is the share of pairs rejected; the row `clean` is the false-reject rate of the clean pairs that
            fixed the threshold. AUC and EER set the attacked pairs against clean pairs of different people; beside
            them (`clean`) those of the very same pairs before the attack.
        """,
        "few_pairs": """
            False-accept rates of {rates} rest on fewer than {n} of {different:,} clean pairs of different people:
            thresholds and true-accept rates there are uncertain.
        """,
        "roc": """
            ROC of verification: the operating points of clean pairs, and those left to the verifier when the pairs of
            one kind are attacked.
        """,
        "identification": """
            **Identification** names an image by a vote of its {k} nearest neighbours ({metric} distance) at the last
            layer. `rank 1` and `rank 5`: the true identity is the nearest, or among the five nearest. `fooled`: the
            share named otherwise, of the images that are named rightly when clean.
        """,
        "gallery": "Test images, clean and attacked, named by {gallery}.",
        "gallery_medoid": "the medoid of each identity",
        "gallery_centroid": "the centroid of each identity",
        "gallery_images": "all training images that the network classifies correctly",
        "deep": """
            A **label-focused** attack changes the classifier's decision. An attack on **deep features** moves the
            embedding itself to that of another person, within a largest change per pixel (`max_thres` of 255), and so
            fools systems that have no classifier.
        """,
        "distances": """
            Distances of successful targeted adversarials from the medoid of the identity aimed at, and of natural
            images from the medoid of their own. The nearer, the more alike to a verifier.
        """,
        "distance_table": "Distance from the medoid at the last layer: median and the middle 80 %.",
        "detection": """
            Detection of deep-features attacks by detectors that learned from classifier attacks only, and by those
            that also learned from a deep-features attack (first seed). `macro` averages over the attacks on the
            class of that form.
        """,
    }.items()
}

"""The fixed sentences of an evaluation's report."""

from __future__ import annotations

from adv_detect.reporting.blocks import prose


def _items(text: str) -> tuple[str, ...]:
    return tuple(prose(item) for item in text.split("\n\n"))


HOW_TO_READ = _items("""
    **AUC** (area under the ROC curve): the chance that a random adversarial image scores higher than a random natural
    one. 1 is perfect, .5 is chance, below .5 is worse than guessing.

    **macro** is the mean AUC over the attacks of a table, **worst** the least of them.

    **Intervals** come from resampling the test images; an AUC of `1.000` with the interval `1.000` to `1.000` says that
    these images do not overlap, not that none ever will.

    **Detector names**: kind of read-out + class representative (`M` medoid, `C` centroid) + distance (`L2`, `cos`,
    `Mahalanobis`); `ranked` sorts the classes of each image by the network's own ranking.

    **Targeted** attacks aim at a given class, **untargeted** ones at any wrong class.

    **Early** attacks stop at their first success and lie at the decision boundary; **confident** ones go beyond it.
    **Unseen** ones stop at the boundary too, and no detector learned from any of them.

    **Control: margin only** is minus the gap of the network's two largest logits. A detector is worth its cost where
    it beats this.
""")

LIMITS = _items("""
    The attacks here do not know of the detector. An attacker who does can aim at both at once; nothing on this page
    says how a detector fares then, unless it has the section "If the attacker knows the detector".

    The numbers hold for this network, this data and these attack strengths. Another network needs its own
    representatives, detectors and thresholds.

    Every source image stands in one split only, but adversarials of one image under several attacks are alike; the
    intervals draw them together.

    Thresholds are set on a finite number of clean images: a rate of 1% on a few hundred images rests on a few of
    them. The rates realised on test images are given for that reason.

    Where adversarials are rare, even a small rate of false alarms outweighs what is found: at one attack per thousand
    images, 99% found at 1% false alarms means that nine of ten alarms are false.

    Seeds vary the detector's initial weights and sampling, not the network, the images or the attacks.
""")

SUMMARY = prose("""
    {detectors} detectors were trained to tell adversarial from natural images by their way through the network, and
    tested on attacks on images that no detector had seen in any version ({naturals:,} natural test images). Below, per
    kind of attack, the detector with the best **validation** score; the test images had no say in the choice.
""")

LAYERS = (
    "Layers read, in the order of trajectories. Outputs are averaged over all axes but those of the images (N) and of "
    "the channels; what is left has the given width."
)
NETWORK = "The network is never retrained; the detector only reads its layers."

MARGIN = "The margin control is what anyone gets for free: minus the gap of the network's two largest logits."

ATTACKS_CAPTION = prose("""
    Attacks on images that the network classifies right, all splits. Success rate with {level:.0%} interval (Wilson);
    norms of the successes' perturbations in the network's pixel range; gradient evaluations per attacked image.
    Failed attempts are not shown to the detectors.
""")

PUBLISHED = prose("""
    Rows marked as published are the paper's, on another network, other data and another split; they show the form and
    the order of magnitude, not a like-for-like comparison.
""")

ON_FEATURES = prose("""
    Macro and worst are over the attacks on the class, as published; attacks on deep features stand behind them.
""")

THRESHOLDS = prose("""
    Thresholds are set on clean **validation** images so that at most the stated share of them is flagged; the columns
    show what these thresholds do on test images. `EER` is the equal error rate, `EER accuracy` the accuracy at that
    threshold; both are read off the test images and describe them.
""")

COMPARISON = prose("""
    An attack that stops at its first success lies right at the decision boundary, where the margin alone gives it
    away. A confident attack goes on, and the margin may fail on it, even far below chance. A detector should
    hold on both, and on attacks of the criterion that it was not trained for.
""")

QUANTISATION = prose("""
    Files hold whole numbers from 0 to 255. Rounding alone undoes some attacks; what no longer fools the network is
    counted as not surviving and left out of the right-hand AUC.
""")

CONTROLS = prose("""
    Three controls keep the tables honest. The **margin** needs no detector. **Untrained** detectors show what the
    trajectory gives to a random read-out: each draw of the weights is as likely to put attacks below natural images as
    above, so their mean is near .5, and their spread says how well a read-out that learned nothing can separate by
    luck. **Random noise** of the perturbation's norm is not an attack: a detector of attacks should not tell it from
    natural images (AUC near .5); far above, it reacts to any change of the pixels.
""")

INSIDE = prose("""
    At each layer an image's features are compared with a representative of each class. What the detector reads is how
    these distances develop through the network, and whether they develop as they do for natural images that the
    network puts in the same class.
""")

CAPTIONS = {
    "auc_overview": prose("""
        AUC per attack and detector. A detector is worth something where its bar lies right of the black line, the
        margin control"""),
    "roc": "ROC curves. The right panel shows what matters in use: how much is found at few false alarms",
    "score_histograms": "Scores of test images. The less the two colours overlap, the better",
    "train_test_matrix": "AUC when one attack is left out of training. Framed: the attack that was never seen",
    "mean_trajectory": prose("""
        Mean trajectory of natural and of adversarial images of one predicted class, layer by layer (distances
        divided by the natural images' mean distance to their own class at that layer); shaded: the middle 80% of the
        images"""),
    "benign_changes": prose("""
        Share of false alarms in percent at a nominal 5%, by detector and benign change. Yellow is bad; the first column
        holds the unchanged images"""),
    "adversarial_grid": prose("""
        Clean image, adversarial image and perturbation (amplified by the factor given), with the network's predictions
        and the norms in its pixel range"""),
    "training_curves": "Training of the detectors; the weights marked were kept, by validation macro-AUC",
}

NO_ATTACKS = (
    "No attack is configured: the detectors learned from clean images alone, and how many attacks they find was not "
    "measured. Shown are false alarms, on natural test images and on images after benign changes."
)
FALSE_ALARMS_ALONE = (
    "Natural test images flagged, at the false-alarm rates that thresholds were set to on clean validation images. "
    "Each image's p-value, the share of clean validation images that score as high, stands in the table of scores."
)

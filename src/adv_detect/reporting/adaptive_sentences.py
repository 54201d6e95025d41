"""The fixed sentences of the section on attackers who know the detector."""

from __future__ import annotations

from adv_detect.reporting.blocks import prose

OPENING = prose("""
Here the attacker has everything: the network, the class representatives, the detector, its weights and its
threshold. An image is **lost** when the network misclassifies it (a targeted attack: as the target) **and** the
detector passes it. Thresholds were fixed beforehand on clean validation images, at 5 % and at 1 % false alarms.
Attacked are test images that the network classifies correctly and the detector passes. A figure is what these
attacks achieved with this much work; a stronger attack can only make it worse.
""")
UNRELIABLE = prose("""
A sanity check failed, so a low share of lost images says that the attacks did not work, not that the detector is
robust. Do not quote these figures as robustness. What failed:
""")
UNION_CAPTION = prose("""
Share of images lost to any of the attacks (95 % interval in percent), per detector and budget in pixel units, with
the strongest single attack; n: images that every attack of the row was run on. An image is lost at a budget if any
successful perturbation, from any run, is within it; targeted successes count as untargeted ones too. All
attacks aim at the threshold of 5 %, so the column for 1 % shows an attacker who aimed elsewhere and is no lower bound.
Matched: share of images for which an attack that ignores all detectors brings the distance of every layer to another
class's centroid into the middle 95 % of those of clean images. Matched and passed: those that the detector then
accepts, which count as lost like the finds of any other attack. A detector that reads layers one by one cannot
flag a matched image; one that reads them together may.
""")
ATTACK_CAPTION = prose("""
Each attack alone. Detected and evaded are shares of the images whose class was changed; distortions are medians over
lost images; zero gradients is the mean share of gradient evaluations that gave nothing to follow.
""")
HALF_LOSS_CAPTION = prose("""
Smallest distortion, in pixel units, at which half of the images are lost to any attack; no entry where fewer than
half were lost. Attacks that use their whole budget overstate it.
""")
AUC_CAPTION = prose("""
How well the detector still ranks images that were fooled under attack above clean test images: .5 is guessing, below
.5 attacked images look cleaner than clean ones. Attacks that stop once they pass leave their images at the threshold,
so read the row of an attack that takes all steps (`selective-full`).
""")
CHECKS_CAPTION = prose("""
Where attacks work, a larger epsilon never helps the defender, many steps do better than one, and knowing the detector
does better than a substitute, queries and random noise; without a bound every image is lost; gradients are not zero;
scores vary. One failure marks every figure of that detector and judge as unreliable.
""")
REFERENCE = prose("""
The published white-box attack keeps the smallest misclassified image without looking at the detector (on faces: stops
at the first misclassification), and passes a detector probability below 0.5. The correct form keeps, among
misclassified images, one that evades, goes on until both are fooled, and meets the threshold fixed on clean validation
images. Both start from the same images, those that pass at either threshold.
""")
REFERENCE_CAPTION = prose("""
The published figures: class changed, and of these detected and evaded, with 95 % intervals in percent; last, the
share of all images that was changed and passed.
""")
NO_REFERENCE = prose("""
The published form was not measured: no attack has `form: reference`, or no clean image passes at a probability of 0.5.
""")
HARDENING = prose("""
Adversarial training of the detector: adaptive adversarial examples on train and validation images, made against the
detector as it was, joined its training attacks; it was fitted again, its thresholds fixed again on clean validation
images, and it was attacked anew on test images, by attackers who know the new one. Test images took no part in it.
""")
HARDENING_CAPTION = prose("""
Before and after: lost to any of the attacks that both met, clean test images flagged at the nominal rates, and mean
AUC on the ordinary attacks that stop at the boundary and on confident ones.
""")
ROUNDS_CAPTION = (
    "Attacked images of each round, how many changed class, and how many of these passed the detector then."
)
NO_HARDENING = "No detector was trained on adaptive adversarial examples (`adaptive_attack.hardening.rounds`)."
SUBSTITUTE = prose("""
Transfer attacks were made on a network trained independently (seed {seed}, accuracy {accuracy:.1%} on the source
images), with class representatives and detectors of its own, and then shown to network and detector under attack.
""")
NO_SUBSTITUTE = "No transfer attack was run, so no substitute network was trained."
LIMITS = prose("""
What these figures do not say: that a detector withstands attacks that were not run, other budgets, more steps or
restarts, or images other than these. What may be concluded is written in `docs/threat-models.md`.
""")
OVERVIEW_CAPTION = prose("""
Lost to any of the attacks at a threshold of 5 %, untargeted, by detector and budget in pixel units (95 % interval in
percent; n in brackets), and the share of clean test images flagged at that threshold. A hardened detector met fewer
attacks, see below; compare it with itself before hardening there.
""")
STEPS_CAPTION = prose("""
Share lost at FPR 5 % after so many steps of each attack (95 % interval in percent). Steps are counted per target class
and added over restarts. Last, what the second half of the steps gained. Where that is more than nothing, more
steps would lose more images.
""")
CAPTIONS = {
    "adaptive_steps": "Share of images lost against the steps of each attack: a curve that still rises has not ended.",
    "adaptive_curves": "Share of images lost against the budget; thick: lost to any attack, with 95 % interval.",
    "adaptive_grid": "Images that got through, beside their clean versions, with distortion and detector score.",
    "adaptive_scores": "Detector scores of fooled images under attack and of clean images.",
}

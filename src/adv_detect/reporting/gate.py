"""The section on verification and identification behind a detector."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from adv_detect.measures.faces.gate import FALSE_ACCEPT, FALSE_REJECT, PAIRS, PROTOCOL, VALIDATION, attack_label
from adv_detect.names import DODGING, IMPERSONATION, NATURAL
from adv_detect.reporting.blocks import Block, Figure, Fold, Section, Table, Text, prose

SAME = "the same person, turned away"
KINDS = {
    IMPERSONATION: "Impersonation: accepted as the person aimed at",
    DODGING: "Dodging: not recognised, and no alarm",
    "named_target": "Identification: named as the person aimed at",
    "misnamed": "Identification: named as somebody else, and no alarm",
}
CALIBRATED = {VALIDATION: "validation images", PAIRS: "images of the pairs, other folds"}
PEOPLE = {PROTOCOL: "pairs of the protocol", "known": "test images of people whom the detector knows"}
CLEAN_KINDS = {FALSE_REJECT: SAME, FALSE_ACCEPT: "different people, accepted"}
TEXTS = {
    name: prose(text)
    for name, text in {
        "gate": """
            A **gate** accepts a pair only if its two pictures show the same person **and** it agrees. There are three
            forms: a **detector** asks of each picture whether it fits its class; **similarity** asks the twin, a second
            network that is harder to mislead, whether the two show the same person; a detector **and similarity** turn
            away what either does. An attack gets through if it reaches its aim and no picture is flagged. A person whom
            the twin does not recognise is not accepted either: against dodging the twin is no help. The similarity
            threshold is fixed on clean pairs at a false-accept rate of {far:g} (similarity {similarity:.3f}). Detectors
            know the people of the classifier only; a stranger has no class of his own, and a detector that asks how
            well a picture fits its class may flag his pictures. The twin asks for no class. So the cost stands for
            both: pairs of the protocol, and test images of people whom the detector knows; and thresholds for both:
            fixed on validation images, and on the images of the pairs, each fold by those of the others; those of the
            twin on pairs of the same person among them.
        """,
        "figure": """
            Attacked pairs that get through, without a gate and behind each gate at a rate of
            {fpr:g}, thresholds from validation images, with 95 % intervals. In brackets: how many more clean pairs of
            a person whom the detector knows are turned away, in percentage points. The ring of an adaptive attack is
            that on the first gate.
        """,
        "costs": """
            Clean pairs and the gate: share decided wrongly without it; share turned away, or accepted, with it, and
            how much that changes, in percentage points.
        """,
        "through": """
            {kind}: share of all attacked {what} without a gate, and with each gate at a rate of {fpr:g}, thresholds
            from {calibrated}; in brackets the 95 % interval. Adaptive attacks, each with its budget, were
            made against one form of the gate: `detector`, that of the column, `similarity`, the twin, or `both`. They
            start from other images for each; so n and the share without a gate stand in the cell. Where none was made
            it is empty.
        """,
        "identification": """
            The same for **identification** in the gallery `{gallery}`: what is flagged is not named. Clean test images
            that are misnamed, or flagged: {clean}.
        """,
    }.items()
}


def gate_section(table: pd.DataFrame, identification: pd.DataFrame, figure: bytes) -> Section:
    """Write the section on the gate.

    Args:
        table: Verification before and after the gate.
        identification: Identification before and after the gate.
        figure: PNG file of the figure.

    Returns:
        The section.
    """
    first, fpr = table.iloc[0], float(table["fpr"].max())
    blocks: list[Block] = [
        Text(TEXTS["gate"].format(far=first["far"], similarity=first["similarity_threshold"])),
        Figure(figure, TEXTS["figure"].format(fpr=fpr), "share of attacked pairs that get through each gate"),
        Table(_costs(table), TEXTS["costs"]),
    ]
    blocks += _through(table, "pairs", fpr)
    further = [one for rate in sorted(table["fpr"].unique()) for one in _others(table, float(rate), fpr)]
    blocks.append(Fold("Other rates, and thresholds from images of the pairs", further))
    for gallery, rows in identification.groupby("gallery", sort=False):
        clean = _clean_sentence(rows[(rows["attack"] == NATURAL) & (rows["fpr"] == fpr)])
        blocks.append(Text(TEXTS["identification"].format(gallery=gallery, clean=clean)))
        blocks += _through(rows, "images", fpr)
    return Section("A gate for faces", blocks)


def _costs(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[table["kind"].isin(CLEAN_KINDS)]
    return pd.DataFrame(
        {
            "gate": rows["configuration"],
            "rate": rows["fpr"].map("{:g}".format),
            "thresholds from": rows["calibrated_on"].map(CALIBRATED),
            "pairs": rows["people"].map(PEOPLE),
            "kind": rows["kind"].map(CLEAN_KINDS),
            "n": rows["n"],
            "without": rows["before"].map("{:.1%}".format),
            "with": _with_interval(rows, "after"),
            "points": (100 * (rows["after"] - rows["before"])).map("{:+.1f}".format),
        }
    ).reset_index(drop=True)


def _others(table: pd.DataFrame, fpr: float, shown: float) -> Iterator[Block]:
    for name in CALIBRATED:
        if (fpr, name) != (shown, VALIDATION):
            yield from _through(table, "pairs", fpr, calibrated=name)


def _through(table: pd.DataFrame, what: str, fpr: float, *, calibrated: str = VALIDATION) -> Iterator[Block]:
    """Yield one table per kind of attack: a row per attack, a column per detector."""
    chosen = table[(table["fpr"] == fpr) & (table["calibrated_on"] == calibrated) & table["kind"].isin(KINDS)]
    for kind, rows in chosen.groupby("kind", sort=False):
        adaptive = rows["norm"] != "none"
        own = ", of " + rows["before"].map("{:.1%}".format) + ", n = " + rows["n"].astype(str)
        cells = pd.Series(_with_interval(rows, "after"), index=rows.index) + own.where(adaptive, "")
        labelled = rows.assign(attack=attack_label(rows), cell=cells, adaptive=adaptive)
        first = labelled.drop_duplicates("attack").set_index("attack")
        shared = {"n": first["n"].astype(str), "no gate": first["before"].map("{:.1%}".format)}
        shown = {name: one.where(~first["adaptive"], "") for name, one in shared.items()}
        frame = pd.DataFrame({"made against": first["knows"], **shown})
        by_detector = labelled.pivot(index="attack", columns="configuration", values="cell")
        joined = frame.join(by_detector[list(labelled["configuration"].unique())]).fillna("").rename_axis("attack")
        words = {"kind": KINDS[str(kind)], "what": what, "fpr": fpr, "calibrated": CALIBRATED[calibrated]}
        yield Table(joined.reset_index(), TEXTS["through"].format(**words))


def _clean_sentence(rows: pd.DataFrame) -> str:
    told = [
        f"{row['configuration']} {row['before']:.1%} without, {row['after']:.1%} with (n = {row['n']})"
        for row in rows.to_dict("records")
    ]
    return "; ".join(told)


def _with_interval(rows: pd.DataFrame, name: str) -> list[str]:
    parts = zip(rows[name], rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
    return [f"{share:.1%} ({100 * low:.1f} to {100 * high:.1f})" for share, low, high in parts]

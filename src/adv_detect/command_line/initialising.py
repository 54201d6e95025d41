"""A new project, and an environment for a folder of pictures and a network in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adv_detect.command_line.network_survey import recognise, survey_network
from adv_detect.command_line.picture_survey import survey_pictures
from adv_detect.command_line.project_files import Written, check_place, project_files, write_new
from adv_detect.command_line.proposal import FEWEST, divide, environment_files
from adv_detect.command_line.running import absolute
from adv_detect.environments import BASE, LOCAL, check_environment
from adv_detect.errors import ConfigurationError

SOURCES = "src"


def initialise(
    folder: Path,
    *,
    images: str | None,
    network: str | None,
    checkpoint: str | None,
    name: str,
    layers: Sequence[str],
    bounds: tuple[float, float],
) -> str:
    """Make a project, and an environment where pictures are named; all is checked before anything is written.

    Args:
        folder: Where to; made if it is not there. Files that are there stay as they are.
        images: Folder of class folders of pictures; None for no environment.
        network: Registered name or dotted path of the network; None with a checkpoint of a registered one.
        checkpoint: Its weights; None where it is trained.
        name: Name of the environment.
        layers: Modules to read; empty for a proposal.
        bounds: Pixel range of the network.

    Returns:
        What was written, and what to run next.

    Raises:
        ConfigurationError: The options do not go together, or the network does not suit the pictures.
        DataError: There are no such pictures.
    """
    check_place(folder)
    files = project_files()
    if images is None:
        if network or checkpoint or layers:
            raise ConfigurationError(
                "--images: expected a folder of class folders of pictures beside the network, got none; say "
                "--images=FOLDER, or leave the network out for a project without an environment of your own"
            )
        return _told(write_new(folder, files), folder, None)
    _check_name(name, folder)
    found = survey_pictures(absolute(images))
    sys.path[:0] = [str(folder / SOURCES), str(Path.cwd())]
    weights = None if checkpoint is None else absolute(checkpoint)
    if weights is not None and not Path(weights).is_file():
        raise ConfigurationError(f"--checkpoint: expected a file of weights, got {weights}, and there is none")
    if network is None:
        if weights is None:
            raise ConfigurationError(
                "--network: expected a registered name, a dotted path, or --checkpoint of a registered one, got none"
            )
        network = recognise(weights, len(found.classes))
    surveyed = survey_network(network, weights, layers, bounds, found)
    own = environment_files(name, found, surveyed, folder)
    few = divide(found).available
    note = f"TOO FEW pictures for a run: {few} test images, and each split of these needs 10" if few < FEWEST else ""
    return _told(write_new(folder, {**files, **own}), folder, name, note)


def _check_name(name: str, folder: Path) -> None:
    """Refuse a name that is taken, before any work."""
    if name in (BASE, LOCAL):
        raise ConfigurationError(
            f"--name: expected the name of a new environment, got {name!r}, which every project has"
        )
    check_environment(name, Path("/nonexistent"))
    if any((folder / "conf" / name).glob("*")) or f"conf/{name}/parameters.yml" in project_files():
        raise ConfigurationError(
            f"--name: expected the name of a new environment, got {name!r}, and conf/{name} is there already; choose "
            "another one"
        )


def _told(written: Written, folder: Path, name: str | None, note: str = "") -> str:
    """Say what was written and what to run next."""
    here = folder == Path.cwd()
    lines = [f"project: {folder}"]
    own = [one for one in written.made if name is not None and one.startswith(f"conf/{name}/")]
    others = len(written.made) - len(own)
    lines += [f"written: {others} files of the project"] if others else []
    lines += [f"written: {one}" for one in own]
    lines += [f"kept as they were: {len(written.kept)} files"] if written.kept else []
    lines += [note] if note else []
    enter = [] if here else [f"cd {folder}"]
    env = "" if name is None else f" --env={name}"
    comment = "" if name is None else f"   # look through conf/{name} first"
    lines += ["next:", *(f"  {one}" for one in (*enter, f"kedro run{env}{comment}", f"adv-detect report{env} --open"))]
    return "\n".join([*lines, f"  adv-detect score FOLDER{env}", ""])

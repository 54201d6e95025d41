"""Commands of the console script ``adv-detect``; each is thin over a pipeline, the server, or the report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from adv_detect import __version__
from adv_detect.command_line.running import (
    absolute,
    enter_project,
    nested,
    one_sentence,
    project_session,
    run_pipeline,
)

CHAMPION = "champion"
env_option = click.option("-e", "--env", default=lambda: os.environ.get("KEDRO_ENV"), help="Environment: conf/<env>.")
param_option = click.option(
    "--param", "further", multiple=True, metavar="NAME=VALUE", help="Any other parameter; may be repeated."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="adv-detect")
def main() -> None:
    """Detect adversarial attacks on image classifiers: score, calibrate, watch and serve pictures.

    Commands work in a project, the folder that `adv-detect init` makes; `kedro run` there is the main job, which trains
    the detectors.
    """


@main.command()
@click.argument("images")
@env_option
@click.option("-m", "--model", help="champion (default), models:/<name>@<alias>, or the folder of a stored model.")
@click.option("--review", type=float, help="False-positive rate from which a picture is reviewed (0.05).")
@click.option("--reject", type=float, help="False-positive rate from which a picture is rejected (0.01).")
@click.option("--show", type=int, help="Most suspicious pictures on the page (12).")
@click.option("--column", help="Of a list of paths: the column that holds them (path).")
@param_option
def score(images: str, env: str | None, model: str | None, further: tuple[str, ...], **given: Any) -> None:
    """Say of each picture whether it looks attacked.

    IMAGES is a folder, a .zip, a .csv or .parquet list of paths, a picture, or any of these at an fsspec address.
    """
    if model is not None and model != CHAMPION:
        model = absolute(model)
    _run("scoring", env, {"images": absolute(images), "model": model, **given}, further)


@main.command()
@click.argument("images")
@env_option
@click.option("--fpr", "fprs", type=float, multiple=True, help="False-positive rate; may be repeated (the model's).")
@click.option("--promote", is_flag=True, help="The new version becomes the champion, unless the pictures look mixed.")
@click.option("--promote-anyway", is_flag=True, help="It does so even then.")
@click.option("--column", help="Of a list of paths: the column that holds them (path).")
@param_option
def calibrate(
    images: str, env: str | None, fprs: tuple[float, ...], promote: bool, promote_anyway: bool, **given: Any
) -> None:
    """Set thresholds from clean pictures of one's own, without training.

    IMAGES as for `adv-detect score`; labels are not needed.
    """
    chosen = "anyway" if promote_anyway else promote or None
    values = {"images": absolute(images), "fprs": list(fprs) or None, "promote": chosen, "column": given["column"]}
    _run("calibration", env, values, given["further"])


@main.command()
@click.argument("log")
@env_option
@click.option("--hours", type=float, help="Span of one point of the flag rate (24).")
@click.option("--level", type=float, help="P-value below which there is an alarm (0.001).")
@param_option
def watch(log: str, env: str | None, further: tuple[str, ...], **given: Any) -> None:
    """Look at what a server was asked: flag rate, drift, near-copies.

    LOG is the folder that `adv-detect serve --log` writes.
    """
    _run("monitoring", env, {"log": absolute(log), **given}, further)


@main.command()
@env_option
@click.option("-m", "--model", help="models:/<name>@<alias>; default: the champion of the environment.")
@click.option("--verification", is_flag=True, help="The gate for pairs of faces instead.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=5001, show_default=True)
@click.option("-t", "--timeout", type=click.IntRange(1), help="Seconds from the start of a request to its answer (60).")
@click.option("--log", help="Folder for a log of what is asked, for `adv-detect watch`.")
def serve(env: str | None, model: str | None, verification: bool, log: str | None, **given: Any) -> None:
    """Answer requests for scores over HTTP until it is ended."""
    from adv_detect.serving.log import VARIABLE

    with one_sentence():
        if log is not None:
            os.environ[VARIABLE] = absolute(log)
        address = model and absolute(model)
        enter_project()
        with project_session(env, {}) as session:
            name = session.load_context().params["serving"].name  # the context tells MLflow its addresses
        from adv_detect.serving.__main__ import serve_model

        default = f"models:/{name}{'-verification' if verification else ''}@{CHAMPION}"
        serve_model(address or default, **given)


@main.command()
@env_option
@click.option("--page", type=click.Choice(["report", "scoring", "monitoring"]), default="report", show_default=True)
@click.option("--open", "opened", is_flag=True, help="Open it in the browser.")
def report(env: str | None, page: str, opened: bool) -> None:
    """Say where the report of the last run lies, or another page, and open it."""
    with one_sentence():
        enter_project()
        from adv_detect.reporting.where import find_page, say_where

        found = find_page(env, page)
        click.echo(say_where(found), nl=False)
        if opened:
            click.launch(found.resolve().as_uri())


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--images", help="Folder of class folders of pictures; writes an environment for them.")
@click.option("--network", help="Of that environment: small, wide, ... or the dotted path of a constructor.")
@click.option("--checkpoint", help="Weights of the network; without --network it is recognised where it can be.")
@click.option("--name", default="mine", show_default=True, help="Name of the environment.")
@click.option("--layer", "layers", multiple=True, help="Module to read, in network order; may be repeated.")
@click.option(
    "--bounds", type=float, nargs=2, default=(0.0, 1.0), show_default=True, help="Pixel range of the network."
)
def init(folder: Path, images: str | None, network: str | None, checkpoint: str | None, **given: Any) -> None:
    """Make a project in FOLDER, by default the working directory; no file that is there is changed.

    With --images and --network or --checkpoint it also writes an environment conf/<name>, with sizes, splits, epsilon
    and layers proposed and explained.
    """
    with one_sentence():
        from adv_detect.command_line.initialising import initialise

        wanted = {"images": images, "network": network, "checkpoint": checkpoint, **given}
        click.echo(initialise(folder.resolve(), **wanted), nl=False)


def _run(pipeline: str, env: str | None, values: dict[str, Any], further: tuple[str, ...]) -> None:
    """Run a pipeline with values of its block of parameters, which has its name."""
    with one_sentence():
        parameters = nested({f"{pipeline}.{name}": value for name, value in values.items()}, further)
        enter_project()
        run_pipeline(pipeline, env, parameters)


if __name__ == "__main__":
    main()

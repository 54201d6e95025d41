"""Pictures of the documentation, by a browser without a window: the report of a run, and the pipelines in kedro-viz.

python -m benchmarks.doc_images     # of the run in data/08_reporting; needs chromium
"""

from __future__ import annotations

import argparse
import functools
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LARGEST = 200_000  # bytes of a picture
COLOURS = (256, 128, 64, 32)
REPORT_SIZE, VIZ_SIZE = (1180, 905), (1500, 900)
VIZ_PIPELINE = "detector_training"  # of all pipelines together a picture shows no names
VIZ_CHOICES = '<script>localStorage.setItem("KedroViz", \'{"showFeatureHints": false, "theme": "light"}\')</script>'
PATIENCE_MS = 20_000  # of a page, in its own time


def take(browser: str, address: str, size: tuple[int, int], to: Path) -> None:
    """Save what a browser shows of a page, in as many colours as fit into ``LARGEST`` bytes.

    Args:
        browser: Program.
        address: Of the page.
        size: Width and height of the window.
        to: PNG.

    Raises:
        RuntimeError: The browser left no picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        options += [
            f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={PATIENCE_MS}",
            f"--screenshot={shot}",
        ]
        done = subprocess.run([browser, *options, address], capture_output=True, text=True, timeout=180, check=False)
        if not shot.exists():
            raise RuntimeError(f"expected a picture of {address} by {browser}, got none: {done.stderr[-500:]}")
        with Image.open(shot) as image:
            save_small(image.convert("RGB"), to)


def save_small(image: Image.Image, to: Path) -> None:
    """Save a picture as PNG, in fewer colours until it is small.

    Args:
        image: RGB.
        to: File; its folder is made.

    Raises:
        ValueError: It is too large in the fewest colours.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    for colours in COLOURS:
        image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(to, optimize=True)
        if to.stat().st_size < LARGEST:
            return
    size = to.stat().st_size
    to.unlink()
    raise ValueError(f"{to}: expected less than {LARGEST:,} bytes in {COLOURS[-1]} colours, got {size:,}; crop it")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder to this machine; its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each file."""


def take_pipelines(browser: str, project: Path, to: Path) -> None:
    """Take a pipeline in kedro-viz, which is built for it.

    Args:
        browser: Program.
        project: Folder of the project.
        to: PNG.
    """
    subprocess.run(
        [Path(sys.executable).parent / "kedro", "viz", "build"], cwd=project, check=True, capture_output=True
    )
    page = project / "build/index.html"
    page.write_text(page.read_text(encoding="utf-8").replace("<head>", f"<head>{VIZ_CHOICES}", 1), encoding="utf-8")
    with served(page.parent) as address:
        take(browser, f"{address}/?pid={VIZ_PIPELINE}", VIZ_SIZE, to)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and take both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doc_images", description=__doc__.partition("\n")[0])
    parser.add_argument("--report", type=Path, default=Path("data/08_reporting/report.html"), help="of a finished run")
    parser.add_argument("--to", type=Path, default=Path("docs/images"), help="folder of the pictures")
    given = parser.parse_args(arguments)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"expected one of the browsers {', '.join(BROWSERS)}, got none; install chromium")
    if not given.report.exists():
        parser.error(f"expected the report of a finished run at {given.report}, got no such file; kedro run makes it")
    take(browser, given.report.resolve().as_uri(), REPORT_SIZE, given.to / "report.png")
    take_pipelines(browser, Path.cwd(), given.to / "kedro-viz.png")


if __name__ == "__main__":
    main()

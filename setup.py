"""Lays the configuration into a wheel, where ``adv-detect init`` takes it from; all else stands in pyproject.toml."""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    """Build the modules, and ``conf`` beside them as ``adv_detect/configuration``."""

    def run(self) -> None:
        """Build; an editable install finds ``conf`` where it is."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "adv_detect", "configuration")
            copytree("conf", target, ignore=ignore_patterns("local"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfiguration})

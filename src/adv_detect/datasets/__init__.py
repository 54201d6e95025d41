"""Kedro datasets of this project; a catalog entry names them by module, e.g. ``adv_detect.datasets.sharded``."""

"""Checks of parameters before any work: single values, names, and whether blocks fit together and fit the images."""

"""The console script ``adv-detect``: pipelines, server and report by short names, and new projects."""

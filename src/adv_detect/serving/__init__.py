"""The model that is handed over: images in, class, adversarial score and verdict out; no Kedro needed."""

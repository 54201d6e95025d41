"""Work on shards that several pipelines share: activations of images, detectors learned from them."""

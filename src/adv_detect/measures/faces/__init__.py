"""Face recognition on embeddings: pairs, verification and identification."""

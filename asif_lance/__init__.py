"""ASIF models on LanceDB: image-text pairs are the model, versions are rows, forgetting is exact."""

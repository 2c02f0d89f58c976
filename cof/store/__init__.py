"""What lies on disk: run folders, records, manifests, datasets, cached replies."""

"""What an image is made of: manifests, indexes, archives. Where it lies in a bucket belongs in `layouts`."""

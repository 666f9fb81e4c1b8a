"""How layers and images get into ECR, step by step. Single calls to AWS belong in `aws`."""

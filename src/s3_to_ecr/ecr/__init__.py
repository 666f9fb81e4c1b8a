"""ECR's API, and what its answers mean. In which order the calls are made belongs in `push`."""

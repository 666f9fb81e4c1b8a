"""The calls to S3 and ECR, and what their answers mean. In which order they are made belongs in `push`."""

"""The SDK's clients and errors, and reading S3. What ECR answers belongs in `ecr`."""

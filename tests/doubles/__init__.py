"""Stand-ins for S3 and ECR over HTTP, stricter than moto and able to fail on demand."""

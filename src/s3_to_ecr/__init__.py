"""Drop a layer, or a whole image, into an S3 bucket; find it in Amazon ECR."""

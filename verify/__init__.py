"""`python -m verify --stack NAME`: proves that a deployed stack works, and asks ECR what the function assumes of it.

It needs boto3, credentials and a region. Everything that it makes is its own, and is deleted at the end.
"""

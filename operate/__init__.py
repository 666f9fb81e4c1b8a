"""For whoever deploys and runs a stack: `make deploy`, `make dead-letters`, `make wait`.

The SAM CLI's packages are all it needs.
"""

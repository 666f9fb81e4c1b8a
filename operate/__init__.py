"""For whoever deploys and runs a stack: `make deploy`, `make dead-letters`. The SAM CLI's packages are all it needs."""

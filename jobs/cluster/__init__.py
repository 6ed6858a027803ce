"""Searches as jobs of a Ray cluster: checks, upload, submission, Kubernetes manifests."""

"""Storage: atomic file writes, folders on S3, retries, and redaction of passwords."""

"""Files and objects: atomic writes, S3 folders, retries, passwords kept out of what is written."""

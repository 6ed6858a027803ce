"""The page of a study: report.html, one file for a browser that loads nothing else."""

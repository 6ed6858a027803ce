"""A study in MLflow: kept up to date while it runs, completed when it ends."""

"""Logging to MLflow. Only `mlflow_store` imports the package mlflow."""

from m3col.runtime.lazy_names import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "serve": "m3col.tracking.mlflow_store:serve",  # for models that version 0.1 logged
        "serve_model": "m3col.tracking.served_model:serve_model",
    },
)

"""The code file of a logged model: MLflow runs it when it loads the model, and nothing is unpickled.

It is copied into every logged model and must work with later versions: it uses one name only.
"""

import m3col.tracking

m3col.tracking.serve_model()

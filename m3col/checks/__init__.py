"""A config checked against its data, its encoders and this machine, before anything is computed."""

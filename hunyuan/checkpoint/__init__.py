"""From a checkpoint of any supported family to a model, and back."""

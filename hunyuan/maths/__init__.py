"""Mathematics by tools: read safely, computed in a limited process, shown with its steps."""

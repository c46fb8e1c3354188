"""Mathematics computed by tools: parsed safely, worked in a limited process, shown with its steps."""

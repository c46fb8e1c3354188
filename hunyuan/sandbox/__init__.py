"""Python that a model wrote, run without files, network or the power to harm."""

"""Models by name: what can be pulled, where it lies, and the downloader.

Reading order: ``entries`` (the catalogue of ``models.toml``), ``store`` (folders on this machine,
`locate`), ``transfer`` (bytes over HTTP, resumable), ``packages`` and ``hub`` (the two kinds of
source), ``pull`` (one model from the first source that delivers it, verified and complete).
"""

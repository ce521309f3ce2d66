"""The plugin's window in napari: view, controller, and pure parts beneath them.

Nothing here computes or loads torch; that is the worker's part.
"""

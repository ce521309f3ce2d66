"""Dense 3D segmentation in napari from a few painted slices.

Importing the package costs nothing: torch and napari are loaded by the modules
that use them.
"""

__version__ = "0.1.0"
